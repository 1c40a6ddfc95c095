"""Examples: the newest rows of a label, with pictures of what they are about, as far as there are.

Pictures are blobs of the row, or of the nearest message that it was made from. Those in the blob
store have an address of their own; what rides in a row or a message is found there again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import PlainTextResponse

from mqinfer.blob import Blob
from mqinfer.blobfields import blob_columns, blob_values
from mqinfer.console import pictures, rendering, watching
from mqinfer.console.figures import Figure
from mqinfer.errors import BadImage, BlobError, ConfigurationError, MqinferError, Unavailable
from mqinfer.monitor.examples import Examples, Place, place_of
from mqinfer.operate.lineage import Lineage, Made

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from mqinfer.console.site import Site
    from mqinfer.console.watching import Column
    from mqinfer.message import Row
    from mqinfer.monitor.examples import Example
    from mqinfer.operate.lineage import Held

_PAGE: Final = 12
_PICTURES: Final = 3  # of one example
_SIDE: Final = 320
_INLINE: Final = "data:;base64,"  # how a column says that the bytes ride in the row


@dataclass(frozen=True, slots=True)
class Shown:
    """One example as the page draws it.

    Attributes:
        example: the row.
        figures: pictures of it.
        more: further pictures, which are not drawn.
    """

    example: Example
    figures: tuple[Figure, ...]
    more: int = 0


async def examples(site: Site, request: Request) -> Response:
    """A page of the rows that have a label."""
    asked = request.query_params
    chosen = watching.column(site, asked.get("series", ""), asked.get("model", ""))
    key, version = asked.get("key", "").removeprefix("="), asked.get("version", "")
    after = place_of(asked.get("after", ""))
    await watching.monitor(site)  # the tables are there
    blobs = blob_columns(chosen.row)
    rows = Examples(site.database, chosen.row, chosen.field, list(blobs), chosen.model)
    found = await rows.page(key, time.time(), _PAGE, after=after, version=version)
    lineage: list[tuple[Held, ...]] = [()] * len(found.rows)
    problem = None
    try:
        lineage = await _of_messages(site, chosen.row, found.rows)
    except Unavailable as error:
        problem = str(error)
    shown = []
    for one, held in zip(found.rows, lineage, strict=True):
        figures = [*_of_row(chosen, one), *map(_of_message, held)]
        shown.append(Shown(one, tuple(figures[:_PICTURES]), max(0, len(figures) - _PICTURES)))
    older = None
    if found.next is not None:
        older = rendering.address("/labels/examples", dict(asked), after=str(found.next))
    return site.render(
        request,
        "labels_examples.html",
        examples=shown,
        hidden={*blobs, chosen.field.column},
        older=older,
        first=after is None,
        problem=problem,
    )


async def _of_messages(
    site: Site, row: type[Row], rows: Sequence[Example]
) -> list[tuple[Held, ...]]:
    """Blobs of what rows were made from; none where the rows have their own."""
    wanted = [one for one in rows if not any(_blobs(row, one))]
    made = [Made(one.ancestors, one.sequence) for one in wanted]
    found = await Lineage(site.app, site.streams).blobs(made) if made else []
    of = {one.id: held for one, held in zip(wanted, found, strict=True)}
    return [of.get(one.id, ()) for one in rows]


def _blobs(row: type[Row], example: Example) -> Iterator[tuple[str, Blob]]:
    """The blobs of a row, with their columns."""
    for name, kind in blob_columns(row).items():
        for text in blob_values(kind, example.columns[name]):
            if isinstance(text, str) and text:
                inline = text.startswith(_INLINE)
                with contextlib.suppress(ValueError):  # somebody else has written it
                    yield (
                        name,
                        Blob.from_wire({"base64": text.removeprefix(_INLINE)} if inline else text),
                    )


def _of_row(chosen: Column, example: Example) -> Iterator[Figure]:
    for number, (name, blob) in enumerate(_blobs(chosen.row, example)):
        place = Place(example.published, example.id)
        own = rendering.address(
            "/labels/picture", series=chosen.name, row=str(place), number=number
        )
        yield Figure(own if blob.path is None else rendering.picture(blob.path, _SIDE), name)


def _of_message(held: Held) -> Figure:
    text = f"{held.kind}.{held.field}"
    if held.blob.path is not None:
        return Figure(rendering.picture(held.blob.path, _SIDE), text)
    own = rendering.address("/labels/picture", message=held.sequence, number=held.number)
    return Figure(own, text)


async def picture_of(site: Site, request: Request) -> Response:
    """A picture that rides in a row, or in a message."""
    asked = request.query_params
    try:
        number = int(asked.get("number", "0"))
        blob = (
            await _in_message(site, int(asked["message"]), number)
            if "message" in asked
            else await _in_row(site, asked.get("series", ""), asked.get("row", ""), number)
        )
        if blob is None:
            return PlainTextResponse("it is not there any more\n", 404)
        content: Any = await blob.bind(site.store).bytes(max_bytes=pictures.LARGEST)
        return pictures.answer(await pictures.drawn(content, _SIDE))
    except (BadImage, BlobError, ConfigurationError, ValueError) as error:
        return PlainTextResponse(f"{error}\n", 404)
    except MqinferError as error:
        return PlainTextResponse(f"{error}\n", 503)


async def _in_message(site: Site, sequence: int, number: int) -> Blob | None:
    held = await Lineage(site.app, site.streams).of_message(sequence)
    return held[number].blob if 0 <= number < len(held) else None


async def _in_row(site: Site, series: str, row: str, number: int) -> Blob | None:
    chosen, place = watching.column(site, series), place_of(row)
    if place is None:
        return None
    blobs = list(blob_columns(chosen.row))
    example = await Examples(site.database, chosen.row, chosen.field, blobs).one(place)
    if example is None:
        return None
    found = list(_blobs(chosen.row, example))
    return found[number][1] if 0 <= number < len(found) else None
