"""What outlives the process, and what gateways keep together.

``usage`` keeps what was used by day, in a file; ``base`` says what a store of values is. The rest is Redis or Valkey, and
imported only where ``redis`` is configured: ``client`` asks the server, never longer than a bound, and not at all while a
breaker says that it is away; ``scripts`` are the limits there, changed in one step each; ``leases`` takes parts of them for
this node; ``notices`` tells nodes of each other's reloads; ``kept`` stores answers.
"""
