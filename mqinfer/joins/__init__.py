"""Joins: a handler that is called once for a message, when everything that came of it is settled.

What `completion` finds out is published here as a message for the stage of the join.
"""
