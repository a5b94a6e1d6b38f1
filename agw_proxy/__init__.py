"""agw: an LLM and agent gateway that runs as a sidecar.

The house in one sentence: bytes come in, are parsed, authenticated, limited, routed, relayed, accounted and logged.
``edge/handler.py`` is that sentence in code; ``app.py`` wires the parts; docs/architecture.md is the map.
"""

__version__ = "0.1.0"
