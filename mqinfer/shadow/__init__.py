"""A version of a model beside the live one.

A shadow, whose answers are a run; or a canary, which has a share of what is live, and goes back by
itself when its alarm rings.
"""
