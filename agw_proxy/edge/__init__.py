"""Towards clients: sockets and signals (``server``), the way of a request (``handler``), its pump (``relay``), its errors (``respond``)."""
