"""Where no drone has been for a day: a timer that each photograph sets anew."""

from __future__ import annotations

import datetime
import os

from mqinfer import Context, Message, Row
from stages.plants.basics import PositionId, app
from stages.plants.leaves import DroneImage

REMIND_AFTER = os.environ.get("PLANTS_REMIND_AFTER", "1d")


class PhotoDue(Message, subject="photo_due"):
    """Comes when no photograph of a position has come for `REMIND_AFTER`.

    Attributes:
        position_id: which.
        last_photo: the day of the last one.
    """

    position_id: PositionId
    last_photo: datetime.date


class Reminder(Row, table="reminder", order_by=("position_id", "last_photo")):
    """A position that was not photographed; `_published` says when it was noticed."""

    position_id: PositionId
    last_photo: datetime.date


@app.stage(later=PhotoDue)
async def expect(photo: DroneImage, ctx: Context) -> None:
    """Expect the next photograph; it takes the place of what the one before has set."""
    due = PhotoDue(photo.position_id, photo.date)
    await ctx.later(due, after=REMIND_AFTER, name="next photograph", key=photo.position_id)


@app.stage
async def remind(due: PhotoDue) -> Reminder:
    """Whoever flies the drones asks this table (or gets a mail from here)."""
    return Reminder(due.position_id, due.last_photo)
