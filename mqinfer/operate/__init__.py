"""Operate: what a person asks of a running app: is it sound, how far is it, what failed.

And what each worker has to be allowed. The answers are facts; the command line prints them.
"""
