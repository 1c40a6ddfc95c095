"""Elastic image search: two models, an index in shards, near-duplicates, a page; see README.md."""
