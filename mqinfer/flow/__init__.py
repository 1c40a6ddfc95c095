"""Flow: one stage at work. Messages are pulled, handled, and answered or dead-lettered.

What a stage may hold is bounded, nothing is acknowledged before its outputs are stored, and a stop
is orderly.
"""
