"""Policy: who is calling (keys), how much they may (limits), and where it goes (routes).

Settings are turned into compiled tables once; the tables decide, synchronously and without I/O.
"""
