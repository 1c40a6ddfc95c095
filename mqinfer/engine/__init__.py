"""The engine: runs stages, batches model calls, writes tables; imports no adapter."""
