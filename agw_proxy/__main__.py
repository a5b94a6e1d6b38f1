"""``python -m agw_proxy`` is ``agw``."""

from agw_proxy.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
