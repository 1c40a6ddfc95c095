"""Tracing: what is done with a message, as spans of the trace that its sender began.

It knows no tracer; `adapters/otel.py` is one. Where there is none nothing of this room is at work.
"""
