"""Frames: where in the user's code something is, for a line of the log."""

from __future__ import annotations

import asyncio
import os
import sysconfig
from pathlib import Path
from types import FrameType

_OURS = str(Path(__file__).parents[1]) + os.sep
_LIBRARIES = tuple(
    {sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
# Below these frames there is the program that started the loop, not what the loop runs.
_LOOP = ("asyncio.events", "asyncio.base_events", "asyncio.runners")


def user_frame(frame: FrameType) -> FrameType:
    """The innermost frame that is neither a library's nor ours; without one, the innermost."""
    innermost: FrameType = frame
    found: FrameType | None = frame
    while found is not None and found.f_globals.get("__name__") not in _LOOP:
        if _is_users(found):
            return found
        found = found.f_back
    return innermost


def waiting_frame(task: asyncio.Task[object]) -> FrameType | None:
    """The innermost frame of the user's, or else of anybody's, in which a task waits."""
    innermost: FrameType | None = None
    users: FrameType | None = None
    awaited: object = task.get_coro()
    while awaited is not None:
        frame, inner = None, None
        for prefix in ("cr", "ag", "gi"):  # coroutines, and generators of both kinds
            frame = frame or getattr(awaited, f"{prefix}_frame", None)
            inner = inner or getattr(awaited, f"{prefix}_await", None)
        inner = inner or getattr(awaited, "gi_yieldfrom", None)
        if isinstance(frame, FrameType):
            innermost = frame
            users = frame if _is_users(frame) else users
        awaited = inner
    return users or innermost


def _is_users(frame: FrameType) -> bool:
    return not frame.f_code.co_filename.startswith((_OURS, *_LIBRARIES, "<frozen"))
