"""MLwatch: photographs by path, what a classifier says of them, and whether it has changed."""
