"""Deployment: one file says what runs; it is rendered, compared with what runs, and applied.

`reading` takes `deploy.toml` to a `Deployment`; `declaration` is what an app's code declares, as
plain values; `changes` says the consequence of each difference; `targets` write files of others.
"""
