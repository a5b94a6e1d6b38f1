"""Agents of the OpenAI Agents SDK, run in this process.

*Discovery* finds candidates on disk, *loading* and *declared* make agents of them, the *catalog* holds those that are
served as *entries*. Only these modules import the SDK (``agents``), and they are imported only where there are agents.
"""
