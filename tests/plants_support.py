"""What the tests of the demos share: what a demo has left behind."""

from __future__ import annotations

from pathlib import Path

import psutil


def left_behind(folder: Path) -> list[str]:
    """Command lines of processes that have to do with a folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = process.info["cmdline"] or []
        environ = process.info["environ"] or {}
        if str(folder) in " ".join(words) or str(folder) in environ.get("MQINFER_BLOBS", ""):
            found.append(" ".join(words))
    return found
