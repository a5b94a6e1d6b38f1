"""The compiled policy core: one noun a module, sources in ``ext/agw_proxy/_hot``, contracts in the ``.pyi`` files here."""
