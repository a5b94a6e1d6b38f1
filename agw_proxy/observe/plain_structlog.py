"""structlog without rich.

structlog imports rich, where it is installed, to colour tracebacks. Our log prints none, and rich costs 4 MB and a tenth
of the start. Whoever imports it later gets it as ever.
"""

import sys
from types import ModuleType
from typing import cast

_hides = "rich" not in sys.modules
if _hides:
    # None in the place of a module: importing it raises ImportError, which structlog takes for "not installed".
    cast("dict[str, ModuleType | None]", sys.modules)["rich"] = None
try:
    import structlog
finally:
    if _hides:
        del sys.modules["rich"]

__all__ = ["structlog"]
