"""Templates: the files that `mqinfer init` copies, an app in each folder.

`common/` is in every app that has no file of the same name. The files are whole as they lie here:
only the app's name, `myapp`, is put in its place. Nothing imports them.
"""
