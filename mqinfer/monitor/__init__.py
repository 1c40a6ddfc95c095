"""Monitor: is the model still what it was?

What rows say is counted; how far that is from a reference, and whether it is more than chance.
"""
