"""Requests: whoever asks gets an answer, once all that came of what was asked is settled.

A request is a root of `completion`; its state changes by compare-and-set, and ends once.
"""
