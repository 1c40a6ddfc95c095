"""Search: what is nearest to a vector?

Vectors are messages of an app; processes hold them in memory, in shards with replicas, and answer.
"""
