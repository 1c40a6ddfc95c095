"""What the monitor says of counts, without any server."""
