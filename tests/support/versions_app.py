"""An app in two versions, for workers of both at once on one job (`tests/jobs/test_versions.py`).

    VERSION=1 HOLD=/path python -m mqinfer worker tests.support.versions_app:app

The answers of the second have a field more. The first stands still at rows from `HELD` on, for as
long as the file is there.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from mqinfer import App, Message, plan
from mqinfer.jobs import state
from mqinfer.testing import until

HELD = 20
VERSION = int(os.environ.get("VERSION", "2"))
ACK_WAIT = 3.0  # seconds: what a dead worker had comes again soon
plan.TRACKER_LIMITS = replace(plan.TRACKER_LIMITS, ack_wait=ACK_WAIT)
plan.DEADLINE_LIMITS = replace(plan.DEADLINE_LIMITS, ack_wait=ACK_WAIT)
plan.JOBS_LIMITS = replace(plan.JOBS_LIMITS, ack_wait=ACK_WAIT)
state.LOST = 3.0  # type: ignore[misc]
app = App("versions")


class Photo(Message):
    n: int


if VERSION == 1:

    class Grade(Message):
        n: int

else:

    class Grade(Message):  # type: ignore[no-redef]
        n: int
        version: int = 1


@app.stage(ack_wait=ACK_WAIT, concurrency=4)
async def grade(photo: Photo) -> Grade:
    if VERSION == 2:
        return Grade(photo.n, VERSION)  # type: ignore[call-arg]
    if photo.n >= HELD:
        hold = Path(os.environ.get("HOLD", ""))
        await until(lambda: not hold.is_file(), "the file's end", 600)
    return Grade(photo.n)


app.endpoint("grade", Photo, answers=Grade)
