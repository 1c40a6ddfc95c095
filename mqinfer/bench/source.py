"""Source: the messages that a pipeline is measured with: generated, from files, or sampled.

The live stream is read by direct gets alone: no consumer is made, nothing is acknowledged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from mqinfer import wiring
from mqinfer.adapters.scan import Scanner
from mqinfer.bench.feed import Template
from mqinfer.codec import CONTENT_TYPES
from mqinfer.errors import BlobNotFound, ConfigurationError
from mqinfer.identity import CONTENT_TYPE
from mqinfer.join import Joined
from mqinfer.tick import Tick

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.blob import BlobStore
    from mqinfer.message import Message
    from mqinfer.settings import Settings

GENERATED = 64  # messages of each type
FROM_FILE = 10_000  # lines of a file that are read, at most
_BYTES = 256 * 1024 * 1024  # of what is sampled of one type


def roots(app: App) -> list[type[Message]]:
    """The types that are read and not written: what comes from outside."""
    stages = app.stages.values()
    written = {kind for stage in stages for kind in (*stage.writes, *stage.later)}
    written |= {stage.reads for stage in stages if not imaginable(stage.reads)}
    found = dict.fromkeys(stage.reads for stage in stages if stage.reads not in written)
    # Where all go round in a circle, any may come from outside.
    return list(found or dict.fromkeys(stage.reads for stage in stages))


def imaginable(kind: type[Message]) -> bool:
    """Whether messages of a type may be made up; what mqinfer tells a stage has to be true."""
    return not issubclass(kind, (Joined, Tick))


def from_files(app: App, given: Sequence[str]) -> dict[type[Message], list[Template]]:
    """Messages of JSONL files, `FILE` or `TYPE=FILE`.

    Raises:
        ConfigurationError: a file cannot be read, or it is not clear of which type it is.
    """
    kinds = {kind.__mqinfer__.subject: kind for kind in app.messages}
    found: dict[type[Message], list[Template]] = {}
    for one in given:
        name, mark, path = one.partition("=")
        if not mark:
            outside = [kind.__mqinfer__.subject for kind in roots(app)]
            if len(outside) != 1:
                raise ConfigurationError(
                    f"--messages {one}: of which type? Say TYPE=FILE: {', '.join(outside)}"
                )
            name, path = outside[0], one
        if name not in kinds:
            raise ConfigurationError(
                f"--messages {one}: app {app.name} has no type {name}; it has {', '.join(kinds)}"
            )
        try:
            with Path(path).open("rb") as file:
                lines = [line.strip() for line, _ in zip(file, range(FROM_FILE), strict=False)]
        except OSError as error:
            raise ConfigurationError(f"--messages {one}: {error.strerror}") from None
        subject = app.subject(kinds[name])
        made = [Template(subject, CONTENT_TYPES["json"], line) for line in lines if line]
        if not made:
            raise ConfigurationError(f"--messages {one}: there is no message in it")
        found.setdefault(kinds[name], []).extend(made)
    return found


async def sampled(app: App, settings: Settings, count: int) -> dict[type[Message], list[Template]]:
    """The newest messages of each type in the live stream that come from outside.

    Raises:
        ConfigurationError: it holds none.
        Unavailable: the server does not answer.
    """
    found: dict[type[Message], list[Template]] = {}
    async with wiring.jetstream(app, settings, "bench") as broker:
        scanner = Scanner(broker.client)
        info = await scanner.stream_info(app.name)
        if info is None:
            raise ConfigurationError(f"--sample: NATS has no stream {app.name}")
        last = int(info["state"]["last_seq"])
        for kind in roots(app):
            found[kind] = await _newest(app, scanner, kind, last, count)
    found = {kind: templates for kind, templates in found.items() if templates}
    if not found:
        names = ", ".join(kind.__mqinfer__.subject for kind in roots(app))
        raise ConfigurationError(
            f"--sample: stream {app.name} holds no message that comes from outside ({names})"
        )
    return found


async def _newest(
    app: App, scanner: Scanner, kind: type[Message], last: int, count: int
) -> list[Template]:
    """About the newest `count` messages of a type: looked for from ever further back."""
    span = 4 * count
    while True:
        first = max(1, last - span + 1)
        newest: list[Template] = []
        for subject in app.filters(kind):
            newest += [
                Template(one.subject, one.headers.get(CONTENT_TYPE, ""), one.data)
                async for one in scanner.messages(app.name, subject, first=first, last=last)
            ]
        if len(newest) >= count or first == 1:
            break
        span *= 8
    newest = newest[-count:]
    size = 0
    for number, template in enumerate(reversed(newest)):
        size += len(template.payload)
        if size > _BYTES:
            return newest[len(newest) - number :]
    return newest


class Overlay:
    """A blob store of the bench's own, over the live one, which is only read."""

    def __init__(self, own: BlobStore, live: BlobStore | None):
        self._own = own
        self._live = live

    async def get(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """See `BlobStore.get`."""
        try:
            return await self._own.get(path, max_bytes=max_bytes)
        except BlobNotFound:
            if self._live is None:
                raise
            return await self._live.get(path, max_bytes=max_bytes)

    async def put(self, path: str, data: bytes) -> None:
        """See `BlobStore.put`."""
        await self._own.put(path, data)

    async def exists(self, path: str) -> bool:
        """See `BlobStore.exists`."""
        return await self._own.exists(path) or (
            self._live is not None and await self._live.exists(path)
        )

    async def close(self) -> None:
        """See `BlobStore.close`; the live one is closed by whoever opened it."""
        await self._own.close()


async def live_store(app: App, settings: Settings, stack: AsyncExitStack) -> BlobStore | None:
    """The live blob store, closed with `stack`; None for a bucket of NATS that is not there."""
    broker = wiring.jetstream(app, settings, "bench")
    if settings.blobs.startswith("nats://"):
        bucket = settings.blobs.removeprefix("nats://") or wiring.blob_bucket(app)
        await stack.enter_async_context(broker)
        if await Scanner(broker.client).stream_info(f"OBJ_{bucket}") is None:
            return None  # the first to read would make it
    store = wiring.blobs(app, settings, broker)
    stack.push_async_callback(store.close)
    return store


def counted(found: Mapping[type[Message], Sequence[Template]]) -> str:
    """How many messages of which type, for people."""
    return ", ".join(
        f"{len(templates):,} x {kind.__mqinfer__.subject}" for kind, templates in found.items()
    )
