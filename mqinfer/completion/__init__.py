"""Completion: when everything that came of a message is settled.

Sets of deterministic ids that only grow, kept by any number of trackers; no counters.
"""
