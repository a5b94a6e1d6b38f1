"""What can be seen from outside: one canonical log line an exchange, events of the gateway itself, and metrics."""
