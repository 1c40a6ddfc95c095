"""Worker: one process at work: which consumers it runs, how each stage is put together, its life.

What it works on is a `Work`: the messages of an app as they come, or a replay run.
"""
