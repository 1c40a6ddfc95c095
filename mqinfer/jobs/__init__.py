"""Jobs: an endpoint asked for every row of a file, or every picture of a folder.

The items go in chunks, each a root of `completion`; what a job is lies in one value and in blobs.
"""
