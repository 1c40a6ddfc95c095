"""Replay: a stretch of the stream through a stage again, beside the live one.

A run is durable and touches nothing live until it is compared and promoted, which can be undone.
"""
