"""What a packed model needs where it is served: a copy of this folder lies in each of its versions.

Nothing here knows mqinfer, so that a Triton in a container serves the same folder; NumPy apart it
is the standard library alone. `child` runs with the model's own Python, 3.9 or later; the others
with that of the server, 3.10 or later.
"""
