"""The commands behind ``agw``: one file a subcommand, each with ``add`` (its arguments) and ``run``."""
