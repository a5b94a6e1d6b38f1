"""Towards models: open a call at a target, read the answer, try the next target when it fails.

``http`` speaks to servers, ``echo`` answers in process, ``attempts`` decides what is tried when, ``catalog`` asks
servers for their models, ``health`` remembers how each upstream fares.
"""
