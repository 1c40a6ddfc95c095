"""Asked: timers that a client sets, and those that a person cancels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mqinfer.birth import new_id
from mqinfer.identity import CONTENT_TYPE, MSG_ID, header_block
from mqinfer.timers import places
from mqinfer.timers.setter import schedule
from mqinfer.timers.table import write

if TYPE_CHECKING:
    from mqinfer.later import Later
    from mqinfer.timers.table import Table


async def set_timer(
    table: Table,
    app: str,
    wish: Later,
    subject: str,
    payload: bytes,
    *,
    identity: str,
    content_type: str,
) -> bool:
    """Set a timer for a client; False if it asked for this one before.

    Args:
        table: of the app.
        app: its name.
        wish: when, and under which name and key.
        subject: full one of the message.
        payload: of the message.
        identity: of the message.
        content_type: of the payload.

    Raises:
        PublishError: it is too large, or refused.
        Unavailable: the server does not answer; ask again under the same identity.
    """
    operation = places.slot_of(identity, subject)
    slot = operation if wish.name is None else places.slot_of(wish.name, wish.key)
    place = places.place(app, places.CLIENT, slot)
    told = {places.OPERATION: operation}
    if wish.name is not None:
        told[places.NAME] = wish.name
    if wish.key is not None:
        told[places.KEY] = wish.key
    block = header_block({CONTENT_TYPE: content_type, MSG_ID: identity})
    header = schedule(block, place, app, subject.encode(), wish.due, told)
    return await write(
        table, place, f"at.{operation}", header, payload, operation=operation, order=None
    )


async def cancel(table: Table, place: str) -> bool:
    """Let what waits in a place never come; False if nothing does.

    What was asked for before stays cancelled, whatever is delivered again; what is asked for later
    counts.

    Raises:
        Unavailable: the server does not answer.
    """
    while True:
        newest = waiting = await table.newest(place)
        if newest is not None and newest.kind == "fired":  # and what replaced it may wait
            waiting = await table.newest(place, "at")
        last = places.later_of(newest, waiting)
        if newest is None or last is None or last.kind != "at":
            if newest is not None and newest.kind == "cancel":
                # Who cancelled it may have died before this.
                await table.drop(f"{place}.at.*", before=newest.sequence)
            return False
        kept = (places.ORDER, places.NAME, places.KEY)
        told = {name: last.headers[name] for name in kept if name in last.headers}
        header = header_block({**told, places.OPERATION: new_id(), "Nats-Rollup": "sub"})
        if await table.put(place, "cancel", header, b"", newest.sequence):
            await table.drop(f"{place}.at.*", before=newest.sequence + 1)
            return True
