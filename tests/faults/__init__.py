"""Every fault that is promised to be survived, as data, and what client, upstream and log must see of it.

Five nouns: a ``Fault`` (``fault.py``) is a promise with one ``Scene`` for a plain answer and one for a stream; the rows
stand in ``before.py`` (no byte has come), ``broken.py`` (a stream or an answer breaks), ``shapes.py`` (odd, but well)
and ``clients.py`` (the client's fault); ``order.py`` is their one list. ``stage.py`` plays a scene on a running gateway
through the official SDKs (``ask.py``) and judges it. ``processes.py`` has the promises about whole processes.
``table.py`` makes the page of the results: ``make faults``.
"""
