"""Configuration in five nouns: sources, trees, origins, settings, problems.

*Sources* give *trees* of values that know their *origin*; *settings* judge them; *problems* say where.
``loader.load`` is the one entrance: it reads ``.env`` and the YAML files (sources), merges them (tree), lays the
environment over them (environment), fills in references (secrets), and validates (settings, checks). Nothing here talks
to the network.
"""
