"""Web: what everything of ours that people reach by HTTP shares: a server, streams of events.

The gateway and the console stand on it. A worker's health has a server of its own (`mqinfer.http`).
"""
