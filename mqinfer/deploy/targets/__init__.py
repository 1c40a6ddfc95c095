"""Targets: files for whoever runs the processes: our supervisor and systemd, Compose, Kubernetes.

Each has a function `render` that takes a `Plan` to the texts of files by name.
"""
