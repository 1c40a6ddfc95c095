"""States: what stages remember of each key, changed exactly once by each message.

They are kept in a bucket of the app, by compare-and-set; `states` has the protocol.
"""
