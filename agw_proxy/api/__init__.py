"""The gateway's endpoints: one file a family, described once and served, matched and documented from that description.

An ``Endpoint`` says where it is, who may ask and what it answers; it either names a ``Relay`` (the request goes to an
upstream) or a local handler, a coroutine from (Control, Asked) to Answer. ``table.ENDPOINTS`` is the ordered list of
all of them, ``endpoint.Matcher`` finds one by method and path, ``openapi.document`` writes them down for others.
No I/O and no server here: ``edge`` serves what is described.
"""
