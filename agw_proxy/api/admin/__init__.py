"""Endpoints for those who run the gateway: they need a key with ``admin: true``, or the scrape key where it says so."""
