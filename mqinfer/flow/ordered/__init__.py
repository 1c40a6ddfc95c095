"""Ordered: messages with one key are handled one after the other, by any number of workers.

A worker owns partitions (`owner`), holds many messages of each, and lets those of different keys
be handled at once (`turns`). ARCHITECTURE.md says why this keeps the order.
"""
