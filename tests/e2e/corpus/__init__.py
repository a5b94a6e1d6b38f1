"""Vectors as data: what may arrive on a connection, from clients and from upstreams, and what must become of it.

A request vector is bytes (and where time matters, steps) with the section of RFC 9110 or 9112 that speaks of it and the
set of acceptable ends; ``vector`` is its form, ``wire`` the client that plays it and judges.
"""
