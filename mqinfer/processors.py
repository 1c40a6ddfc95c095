"""Processors: how many this process may use, which in a container are often few of the host's."""

from __future__ import annotations

import os


def usable() -> int:
    """At least one."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
