"""The outside world: one file a server, the only ones that import its client."""
