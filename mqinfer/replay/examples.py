"""Examples of a comparison with what they are about: the input that was answered, and pictures.

The input lies in the stream under the sequence that the run has written down for it, and is
decoded as what the replayed stage reads. It may be gone, as its blobs may be: an example says so in
their place, and the comparison stays what it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mqinfer.blob import Blob
from mqinfer.blobfields import blob_columns, blob_values
from mqinfer.codec import Codec, blobs_in
from mqinfer.errors import DecodeError, MqinferError, Unavailable
from mqinfer.identity import CONTENT_TYPE, input_id
from mqinfer.replay.comparepage import Figure, data_url

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.blob import BlobStore
    from mqinfer.message import Message, Row
    from mqinfer.replay.run import Run
    from mqinfer.streams import Streams

_MOST = 8  # figures of one example
_PICTURE = 5_000_000  # bytes; a larger one is named, not shown
_PAGE = 50_000_000  # characters of all pictures together
_INLINE = "data:;base64,"  # how a column says that the bytes ride in the row


@dataclass(frozen=True, slots=True)
class Attached:
    """A blob of an example.

    Attributes:
        of: "input", or the row that is "old" or "new".
        field: that it is in.
        blob: with its bytes where they ride in the message or the row.
    """

    of: str
    field: str
    blob: Blob

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `bytes` is the size of one that has no path."""
        data = self.blob.inline
        size = None if data is None else len(data)
        return {"of": self.of, "field": self.field, "path": self.blob.path, "bytes": size}


# By table and the example's number in it.
Attachments = Mapping[tuple[str, int], Sequence[Attached]]


async def attach(app: App, run: Run, facts: dict[str, Any], streams: Streams) -> Attachments:
    """Find the blobs of the examples, and those of the inputs that they answer.

    Each example gets `blobs`, and `problem`: why its input cannot be looked at, or None.

    Args:
        app: the app.
        run: the new side.
        facts: as `mqinfer.replay.compare.compare` gives them.
        streams: where the messages are.
    """
    inputs = _Inputs(app, run, streams)
    found = {}
    for table in facts["tables"]:
        row = app.rows[table["table"]]
        for number, example in enumerate(table["examples"]):
            of_input, example["problem"] = await inputs.get(example["input"], example["sequence"])
            blobs = [*of_input, *_of_rows(example, row)]
            example["blobs"] = [one.as_dict() for one in blobs]
            found[table["table"], number] = blobs
    return found


class _Inputs:
    """The messages that were replayed, each read once: it may have led to many rows."""

    def __init__(self, app: App, run: Run, streams: Streams):
        self._stream = app.name
        self._kind = app.stages[run.stage].reads
        self._streams = streams
        self._codec = Codec()
        self._known: dict[str, tuple[list[Attached], str | None]] = {}
        self._away: str | None = None

    async def get(self, identity: str, sequence: int | None) -> tuple[list[Attached], str | None]:
        """The blobs of a message, and why there are none to be seen."""
        if identity not in self._known:
            try:
                message = await self._read(identity, sequence)
            except Unavailable as error:
                self._away = str(error)
                self._known[identity] = [], self._away
            except MqinferError as error:
                self._known[identity] = [], " ".join(str(error).split())
            else:
                self._known[identity] = list(_of_message(message)), None
        return self._known[identity]

    async def _read(self, identity: str, sequence: int | None) -> Message:
        if self._away is not None:  # or each would wait as long as the first
            raise Unavailable(self._away)
        stored = None
        if sequence is not None:
            stored = await self._streams.message(self._stream, sequence)
        # A stream that was made anew has counted from 1 again.
        if stored is None or input_id(stored.headers, self._stream, stored.sequence) != identity:
            raise MqinferError("the stream does not hold it any more")
        try:
            return self._codec.decode(self._kind, stored.data, stored.headers.get(CONTENT_TYPE))
        except DecodeError as error:
            raise DecodeError(f"it cannot be decoded: {error}") from None


def _of_message(message: Message) -> Iterator[Attached]:
    for name in message.__struct_fields__:
        for blob in blobs_in(getattr(message, name), message.__mqinfer__.wire)[0]:
            yield Attached("input", name, blob)


def _of_rows(example: Mapping[str, Any], row: type[Row]) -> Iterator[Attached]:
    for of in ("old", "new"):
        for name, kind in blob_columns(row).items():
            for text in blob_values(kind, example[of][name]):
                if isinstance(text, str) and text:
                    with contextlib.suppress(ValueError):  # a row that somebody else has written
                        yield Attached(of, name, _of_column(text))


def _of_column(text: str) -> Blob:
    """The blob that a column shows as `text`.

    Raises:
        ValueError: it is none.
    """
    inline = text.startswith(_INLINE)
    return Blob.from_wire({"base64": text.removeprefix(_INLINE)} if inline else text)


# --- pictures -----------------------------------------------------------------------------------


async def figures(
    attachments: Attachments, store: BlobStore
) -> dict[tuple[str, int], list[Figure]]:
    """The blobs as figures of a page: pictures where they are, and as many as a page can hold.

    Args:
        attachments: as `attach` gives them.
        store: where blobs are kept.
    """
    drawn = _Drawn(store)
    return {place: await drawn.figures(blobs) for place, blobs in attachments.items()}


class _Drawn:
    def __init__(self, store: BlobStore):
        self._store = store
        self._room = _PAGE
        self._away: str | None = None

    async def figures(self, blobs: Sequence[Attached]) -> list[Figure]:
        """One for each blob that is another."""
        names: dict[Blob, list[str]] = {}
        for one in blobs:
            names.setdefault(one.blob, []).append(f"{one.of}.{one.field}")
        found = []
        for blob in list(names)[:_MOST]:
            name = f"{', '.join(names[blob])}: {blob.path or 'inline'}"
            url, problem = await self._draw(blob)
            found.append(Figure(f"{name} ({problem})" if problem else name, url))
        if len(names) > _MOST:
            found.append(Figure(f"and {len(names) - _MOST:,} more"))
        return found

    async def _draw(self, blob: Blob) -> tuple[str | None, str | None]:
        """The URL of a picture, or why there is none."""
        if self._away is not None and blob.inline is None:
            return None, self._away
        try:
            content = await blob.bind(self._store).bytes(max_bytes=_PICTURE)
        except Unavailable as error:
            self._away = str(error)
            return None, self._away
        except MqinferError as error:
            return None, " ".join(str(error).split())
        url = data_url(content)
        if url is None:
            return None, f"{len(content):,} bytes, no picture that a browser shows"
        if len(url) > self._room:
            return None, "the page is full"
        self._room -= len(url)
        return url, None
