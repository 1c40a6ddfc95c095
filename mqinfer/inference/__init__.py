"""Inference: the model calls of all handlers of a process, gathered into requests to one server.

A bad item fails alone, an outage means waiting, and a new version is followed while calls wait.
"""
