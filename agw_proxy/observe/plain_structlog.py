"""structlog without rich.

structlog imports rich, where it is installed, to colour tracebacks. Our log prints none, and rich costs 4 MB and a tenth
of the start. Whoever imports it later gets it as ever.
"""

import sys
from typing import Any

_modules: dict[str, Any] = sys.modules
_hides = "rich" not in _modules
if _hides:
    # None in the place of a module: importing it raises ImportError, which structlog takes for "not installed".
    _modules["rich"] = None
try:
    import structlog
finally:
    if _hides:
        del _modules["rich"]

__all__ = ["structlog"]
