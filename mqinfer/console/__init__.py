"""Console: pages on which people look at an app, and do what a person decides.

One process, which keeps nothing: what it shows is asked of the servers, and any other shows it too.
"""
