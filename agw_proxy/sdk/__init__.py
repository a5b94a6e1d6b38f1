"""Agents of the OpenAI Agents SDK, served as models. Only these modules import the SDK, and only where there are agents.

*Discovery* finds candidates on disk, *loading* and *declared* make agents of them, the *catalog* holds those that are
served as *entries*. Of a call, *requests* is what the caller asks, *equipped* the agent with what the caller brings, the
*runner* one run of it, and the *bridge* its events in the hub's words, which any dialect can write. *Models* and *transport*
take the run's own model calls back through the gateway.
"""
