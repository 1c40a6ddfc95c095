"""`mqinfer publish`: JSON lines into the stream."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from mqinfer.cli import interrupt, options
from mqinfer.cli.load import load_app
from mqinfer.cli.output import print_json
from mqinfer.errors import ConfigurationError, DecodeError, MqinferError, PublishError

if TYPE_CHECKING:
    from mqinfer.adapters.jetstream import JetStream
    from mqinfer.app import App
    from mqinfer.message import Message

_JSON = "application/json"
_MAX_OUTSTANDING = 1000
_CHUNK = 256 * 1024
_TIMEOUT = 60.0


def publish(
    app: options.AppName,
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="Of a message type.")],
    file: Annotated[str, typer.Argument(metavar="[FILE|-]", help="JSON lines; - is stdin.")] = "-",
    id_field: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Field that holds each message's id: published again, it is stored once.",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Refuse lines that are no such message.")
    ] = True,
    content_type: Annotated[
        str, typer.Option(metavar="TYPE", help="With --no-check: what the lines are.")
    ] = _JSON,
    nats_url: options.NatsUrl = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Publish JSON lines, one message a line.

    Each line is checked against the message type of SUBJECT. A line that is none ends the command
    with its number; the lines before it are published, so fix it and publish the rest.

    \b
      mqinfer publish plants:app drone_image photos.jsonl
      echo '{"position_id": "p1", ...}' | mqinfer publish plants:app drone_image
      mqinfer publish plants:app leaf --id-field id leaves.jsonl      safe to repeat
    """
    settings = options.load_settings(nats_url=nats_url)
    options.quiet_logging(settings)
    loaded = load_app(app)
    if check and content_type != _JSON:
        raise ConfigurationError("--content-type needs --no-check: only JSON lines can be checked")
    lines = _Lines(loaded, subject, id_field, check=check, content_type=content_type)
    with _opened(file) as source, _progress(source) as advance:
        sent = interrupt.run(_publish(loaded, settings, lines, source, advance))
    _tell(sent, lines.subject, as_json)
    if sent.problem is not None:
        raise sent.problem


class _Sent:
    """What became of the lines."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.seconds = 0.0
        self.stored = 0
        self.repeats = 0
        self.problem: MqinferError | None = None
        self.problem_line = sys.maxsize

    def failed(self, line: int, error: Exception) -> None:
        """Keep the error of the first line that has one."""
        if line < self.problem_line:
            self.problem_line = line
            self.problem = PublishError(f"line {line}: {error}")


class _Lines:
    """Turns lines into what is published."""

    def __init__(
        self, app: App, subject: str, id_field: str | None, *, check: bool, content_type: str
    ):
        from mqinfer.codec import Codec

        self._kind = message_type(app, subject)
        if check and id_field is not None and id_field not in self._kind.__struct_fields__:
            raise ConfigurationError(
                f"--id-field: {self._kind.__name__} has no field {id_field!r}; it has "
                + ", ".join(self._kind.__struct_fields__)
            )
        self.subject = app.subject(self._kind)
        self._id_field = id_field
        self._check = check
        self._content_type = content_type
        self._codec = Codec()

    def read(self, line: bytes) -> tuple[str, str | None]:
        """Subject of a line, and the id that it gives itself.

        Raises:
            DecodeError: it is no such message.
        """
        if self._check:
            message: Any = self._codec.decode(self._kind, line, _JSON)
            fields = {name: getattr(message, name) for name in self._kind.__struct_fields__}
        elif self._id_field is not None:
            fields = _any_fields(line)
        else:
            return self.subject, None
        subject = self.subject
        key = self._kind.__mqinfer__.key
        if key is not None and key in fields:
            from mqinfer.message import key_token

            subject += f".{key_token(fields[key])}"
        if self._id_field is None:
            return subject, None
        identity = str(fields.get(self._id_field, "") or "")
        if not identity:
            raise DecodeError(f"the field {self._id_field!r} holds no id")
        return subject, identity

    def header(self, identity: str | None) -> bytes:
        """The header block of a message; without an id of its own it gets a random one."""
        from mqinfer.birth import new_id
        from mqinfer.identity import CONTENT_TYPE, MSG_ID, given_id, header_block, safe_id

        ids = {MSG_ID: new_id()} if identity is None else given_id(self.subject, safe_id(identity))
        return header_block({**ids, CONTENT_TYPE: self._content_type})


def message_type(app: App, subject: str) -> type[Message]:
    """The type whose subject is `subject`, with or without the app's name in front.

    Raises:
        ConfigurationError: no type of the app has it.
    """
    bare = subject.removeprefix(f"{app.name}.")
    for kind in app.messages:
        if kind.__mqinfer__.subject in (subject, bare):
            return kind
    known = ", ".join(kind.__mqinfer__.subject for kind in app.messages)
    raise ConfigurationError(f"app {app.name} has no subject {subject!r}; it has {known or 'none'}")


def _any_fields(line: bytes) -> dict[str, Any]:
    import msgspec

    try:
        fields = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError(f"no JSON, so it has no id field: {error}") from None
    if not isinstance(fields, dict):
        raise DecodeError("no JSON object, so it has no id field")
    return fields


async def _publish(
    app: App, settings: Any, lines: _Lines, source: IO[bytes], advance: Callable[[int, int], None]
) -> _Sent:
    from mqinfer import plan, wiring

    async with wiring.jetstream(app, settings, "publish") as broker:
        await broker.ensure_stream(plan.stream_spec(app))
        sent = _Sent()
        free = asyncio.Semaphore(_MAX_OUTSTANDING)
        number = 0
        async for line in read_lines(source):
            number += 1
            advance(len(line) + 1, sent.stored)
            if not line.strip():
                continue
            try:
                subject, identity = lines.read(line)
            except DecodeError as error:
                sent.failed(number, error)
            await free.acquire()
            if sent.problem is not None:  # also one that came back meanwhile
                free.release()
                break
            await _room(broker)
            _send(broker, subject, lines.header(identity), line, number, sent, free)
        for _ in range(_MAX_OUTSTANDING):  # all are free again when all were answered
            await free.acquire()
        sent.seconds = time.monotonic() - sent.began
        return sent


async def _room(broker: JetStream) -> None:
    if broker.full:
        await broker.room()


def _send(
    broker: JetStream,
    subject: str,
    header: bytes,
    payload: bytes,
    number: int,
    sent: _Sent,
    free: asyncio.Semaphore,
) -> None:
    def done(error: Exception | None, repeat: bool) -> None:
        free.release()
        if error is not None:
            sent.failed(number, error)
        else:
            sent.stored += 1
            sent.repeats += repeat

    broker.publish(subject, header, payload, done, timeout=_TIMEOUT)


async def read_lines(source: IO[bytes]) -> AsyncIterator[bytes]:
    """The lines of a file or pipe as they come, without their ends.

    Read by a daemon thread: a terminal or pipe that says nothing must not keep Ctrl-C waiting.
    """
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    room = threading.Semaphore(4)
    descriptor = source.fileno()

    def read() -> None:
        while True:
            room.acquire()
            try:
                # Not through the buffer, whose lock a reader that waits would keep at the exit.
                chunk: bytes | OSError = os.read(descriptor, _CHUNK)
            except OSError as error:
                chunk = error
            try:
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            except RuntimeError:  # the loop is closed: nobody reads any more
                return
            if not chunk or isinstance(chunk, OSError):
                return

    threading.Thread(target=read, name="lines", daemon=True).start()
    rest = b""
    while True:
        chunk = await chunks.get()
        room.release()
        if isinstance(chunk, OSError):
            raise chunk
        if not chunk:
            break
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r")
    if rest:
        yield rest


# --- files and words ----------------------------------------------------------------------------


def _opened(file: str) -> Any:
    if file == "-":
        import contextlib

        return contextlib.nullcontext(sys.stdin.buffer)
    path = Path(file)
    if not path.is_file():
        raise ConfigurationError(f"{file}: there is no such file")
    return path.open("rb")


def _progress(source: IO[bytes]) -> Any:
    """A context manager whose value is called with the bytes that were read."""
    from mqinfer.cli.output import byte_progress

    return byte_progress(source)


def _tell(sent: _Sent, subject: str, as_json: bool) -> None:
    rate = sent.stored / sent.seconds if sent.seconds else 0.0
    if as_json:
        print_json(
            {
                "subject": subject,
                "published": sent.stored,
                "repeats": sent.repeats,
                "seconds": round(sent.seconds, 3),
                "rate": round(rate, 1),
            }
        )
        return
    repeats = f", {sent.repeats:,} of them were there already" if sent.repeats else ""
    print(
        f"published {sent.stored:,} messages on {subject} in {sent.seconds:.1f} s "
        f"({rate:,.0f}/s){repeats}"
    )
