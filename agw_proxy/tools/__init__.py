"""The gateway's own tools, which agents ask for by name (``agw_proxy.sdk.gateway_tool``).

The *registry* holds them and decides on each call: whether the caller's key may use the tool, its limits, its time; it
tells the log and the metrics. What a tool does is in a module a kind: *local* functions of Python, run on the loop or,
where they are not ``async``, on *threads* of their own.
"""
