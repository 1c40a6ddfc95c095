"""The bench room: how fast a user's own pipeline is, where its time goes and what bounds it.

It works on embedded servers of its own in a temporary folder; live streams are only read.
"""
