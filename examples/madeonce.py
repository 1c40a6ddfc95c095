"""What an example makes at first use and keeps: a model repository, pictures."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def made_once(target: Path, make: Callable[[Path], Path]) -> Path:
    """A file or folder, made if it is not there; whole, or not at all.

    Two processes may call it at once: one makes it, the other waits.

    Args:
        target: where it is kept.
        make: is given a folder to work in, and gives what it made there; may raise.

    Returns:
        The absolute path of it.
    """
    target = target.absolute()
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():  # another process may have made it while this one waited
            with tempfile.TemporaryDirectory(dir=target.parent, prefix="making-") as work:
                made = make(Path(work))
                os.replace(made, target)  # noqa: PTH105 - the atomicity of os.replace is the point
    return target
