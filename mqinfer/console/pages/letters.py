"""Dead letters: in groups by stage and error, one by one, and sent back or dropped.

What is done is done a part at a time, each asked for by the answer to the one before: nothing of it
lives in this process, so that a restart or another replica changes nothing, and who closes the page
has stopped it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from starlette.responses import PlainTextResponse, Response

from mqinfer import plan
from mqinfer.codec import Codec, blobs_in
from mqinfer.console import payloads, pictures
from mqinfer.console.page import Filters, Form, Page, of_form, place_of_list
from mqinfer.errors import BadImage, ConfigurationError, MqinferError
from mqinfer.identity import CONTENT_TYPE
from mqinfer.operate.alike import pattern
from mqinfer.operate.letters import DeadLetters, Letter, Selection, parse_sequences
from mqinfer.operate.newest import newest

if TYPE_CHECKING:
    import datetime

    from starlette.requests import Request

    from mqinfer.blob import Blob
    from mqinfer.console.site import Site
    from mqinfer.streams import Stored

SHOWN: Final = 50
PART: Final = 100  # letters of one answer
_GROUPED: Final = 300  # letters that groups are made of
_PATTERN: Final = 200  # characters of an error's pattern in an address
_FILTERS: Final = ("stage", "kind", "error", "alike")
_PICTURES: Final = 8


@dataclass(slots=True)
class Group:
    """Letters that died of the same.

    Attributes:
        stage: that gave up.
        kind: see `mqinfer.flow.deadletter.Kind`.
        alike: the pattern of the error.
        line: the newest one's error.
        newest: when it died.
        oldest: when the oldest died, of those that were looked at.
        count: of those.
    """

    stage: str
    kind: str
    alike: str
    line: str
    newest: datetime.datetime
    oldest: datetime.datetime
    count: int = 0


def groups(letters: Sequence[Letter]) -> list[Group]:
    """Letters by what they died of, the largest first.

    Args:
        letters: the newest first.
    """
    found: dict[tuple[str, str, str], Group] = {}
    for letter in letters:
        alike = pattern(letter.line)[:_PATTERN]
        key = letter.stage, letter.kind, alike
        group = found.get(key)
        if group is None:
            group = found[key] = Group(*key, letter.line, letter.time, letter.time)
        group.oldest = letter.time
        group.count += 1
    return sorted(found.values(), key=lambda one: -one.count)


async def look(site: Site, filters: Filters) -> dict[str, Any]:
    """Groups, and a page of letters."""
    stream = plan.dead_stream_spec(site.app).name
    info = await site.streams.stream_info(stream)
    stamp = (dict(filters), info and info["created"], info and info["state"])
    last = site.memory.get("letters")
    if isinstance(last, tuple) and last[0] == stamp:  # none has come, and none has gone
        return cast("dict[str, Any]", last[1])
    found = await _look(site, filters, stream)
    site.memory["letters"] = stamp, found
    return found


async def _look(site: Site, filters: Filters, stream: str) -> dict[str, Any]:
    counts = await site.streams.subjects(stream)
    kept = sum(counts.values())
    chosen = _selection(filters)
    if not kept:
        return {"kept": 0, "groups": [], "letters": [], "older": None, "grouped": 0, "looked": 0,
                "kinds": KINDS, "stages": [], "known": {}}  # fmt: skip
    latest = await newest(site.streams, stream, Letter, count=_GROUPED)
    subject = plan.dead_subject(site.app, filters["stage"]) if "stage" in filters else ">"

    def take(stored: Stored) -> Letter | None:
        letter = Letter(stored)
        return letter if chosen.takes(letter) else None

    before = place_of_list(filters.get("before", ""))
    page = await newest(site.streams, stream, take, subject=subject, before=before, count=SHOWN)
    prefix = plan.dead_subject(site.app, "")
    return {
        "kept": kept,
        "grouped": len(latest.found),
        "groups": groups(latest.found),
        "letters": page.found,
        "older": page.older,
        "looked": page.looked,
        "kinds": KINDS,
        "stages": sorted(name.removeprefix(prefix) for name in counts),
        "known": {task.name for task in plan.tasks(site.app)},
    }


KINDS: Final = ("decode", "rejected", "failed", "timeout", "killed")


def _selection(filters: Filters, **more: Any) -> Selection:
    def words(name: str) -> tuple[str, ...]:
        return (filters[name],) if filters.get(name) else ()

    return Selection(
        stages=words("stage"),
        kinds=words("kind"),
        reason=filters.get("error"),
        alike=filters.get("alike"),
        **more,
    )


# --- one letter ---------------------------------------------------------------------------------


def _dead(site: Site) -> DeadLetters:
    return DeadLetters(site.app, site.streams, site.broker, site.runs)


async def _find(site: Site, request: Request) -> tuple[Letter, bytes | None]:
    """The letter that an address names, and the payload of its message.

    Raises:
        ConfigurationError: it is not there.
    """
    text = request.query_params.get("seq", "")
    dead = _dead(site)
    async for letter in dead.select(Selection(sequences=parse_sequences([text]), limit=1)):
        return letter, await dead.payload(letter)
    raise ConfigurationError(f"dead letter {text} is there no more: it was sent back, or dropped")


def _blobs(site: Site, letter: Letter, payload: bytes | None) -> list[Blob]:
    """What the message holds of blobs, as far as it can be read."""
    if payload is None:
        return []
    task = next((one for one in plan.tasks(site.app) if one.name == letter.stage), None)
    if task is None:
        return []
    try:
        message = Codec(site.store).decode(task.reads, payload, letter.headers.get(CONTENT_TYPE))
        return blobs_in(message, task.reads.__mqinfer__.wire)[0][:_PICTURES]
    except (MqinferError, TypeError, ValueError, OverflowError):
        return []


async def show(site: Site, request: Request) -> Response:
    """All that is known of a letter."""
    letter, payload = await _find(site, request)
    shown = None
    if payload is not None:
        shown = payloads.text(payload, letter.headers.get(CONTENT_TYPE))
    return site.render(
        request,
        "letter.html",
        letter=letter,
        payload=shown,
        cut=shown is not None and len(shown) >= payloads.MOST,
        bytes=None if payload is None else len(payload),
        blobs=_blobs(site, letter, payload),
    )


async def picture(site: Site, request: Request) -> Response:
    """A picture in a letter's message, whether it rides in it or lies in the blob store."""
    letter, payload = await _find(site, request)
    number = request.query_params.get("n", "0")
    blobs = _blobs(site, letter, payload)
    if not number.isdecimal() or int(number) >= len(blobs):
        return PlainTextResponse("no such picture\n", 404)
    try:
        content = await blobs[int(number)].bytes(max_bytes=pictures.LARGEST)
        return pictures.answer(await pictures.drawn(content, 480))
    except (BadImage, MqinferError) as error:
        return PlainTextResponse(f"{error}\n", 404)


async def download(site: Site, request: Request) -> Response:
    """The payload as a file, which no browser shows."""
    letter, payload = await _find(site, request)
    name = f"letter-{letter.sequence}.bin"
    headers = {
        "content-disposition": f'attachment; filename="{name}"',
        "content-security-policy": "default-src 'none'; sandbox",
    }
    return Response(payload or b"", media_type="application/octet-stream", headers=headers)


# --- sending back, dropping -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What an action is about.

    Attributes:
        verb: "retry" or "drop".
        selection: which letters.
        filters: of the page, where all that they let through are meant.
        sequences: of those that were ticked, where they are meant.
        last: the newest letter that is meant, where those of filters are.
        to: the stage that took over.
    """

    verb: str
    selection: Selection
    filters: dict[str, str]
    sequences: tuple[int, ...]
    last: int
    to: str


def _wanted(form: Form) -> _Wanted:
    verb = of_form(form, "do")
    if verb not in ("retry", "drop"):
        raise ConfigurationError(f"{verb[:20]!r} is nothing that can be done: retry, or drop")
    sequences = tuple(sorted({first for first, _ in parse_sequences(form.get("seq", []))}))
    filters = {name: text for name in _FILTERS if (text := of_form(form, name))}
    last = of_form(form, "last")
    end = int(last) if last.isascii() and last.isdigit() else 0
    if of_form(form, "all"):
        chosen = _selection(filters, sequences=((1, end),) if end else ())
        return _Wanted(verb, chosen, filters, (), end, of_form(form, "to"))
    if not sequences:
        raise ConfigurationError("tick some letters first, or choose all that are listed")
    chosen = Selection(sequences=tuple((one, one) for one in sequences))
    return _Wanted(verb, chosen, {}, sequences, sequences[-1], of_form(form, "to"))


def _count(form: Form, name: str) -> int:
    text = of_form(form, name)
    return int(text) if text.isascii() and text.isdigit() else 0


async def ask(site: Site, request: Request, form: Form) -> Response:
    """Say what would be done, and ask whether it is to be."""
    wanted = _wanted(form)
    dead = _dead(site)
    act = dead.drop if wanted.verb == "drop" else dead.retry
    last = wanted.last
    if not last:  # what dies from now on is not meant
        info = await site.streams.stream_info(plan.dead_stream_spec(site.app).name)
        last = int(info["state"]["last_seq"]) if info else 0
        wanted = _wanted({**form, "last": [str(last)]})
    result = await act(wanted.selection, dry_run=True)
    if not result.done:
        return site.said(request, "None of them is there any more", bad=True)
    stages = {task.name for task in plan.tasks(site.app)}
    return site.render(
        request,
        "letters_ask.html",
        wanted=wanted,
        result=result,
        last=last,
        gone=sorted(set(result.by_stage) - stages) if wanted.verb == "retry" else [],
        stages=sorted(stages),
    )


async def act(site: Site, request: Request, form: Form) -> Response:
    """Do a part of it, and say how far it is; the page asks for the next part."""
    wanted = _wanted(form)
    begun = _count(form, "from")
    dead = _dead(site)
    part = [letter.sequence async for letter in dead.select(_next(wanted, begun))]
    done, failed = _count(form, "done"), _count(form, "failed")
    total = max(_count(form, "total"), done + failed + len(part))
    problems: list[str] = []
    if part:
        chosen = Selection(sequences=tuple((one, one) for one in part))
        if wanted.verb == "drop":
            result = await dead.drop(chosen)
        else:
            result = await dead.retry(chosen, to=wanted.to or None)
        done, failed, problems = done + result.done, failed + result.failed, result.problems
        problems += [
            f"run {run} is at work again: mqinfer worker APP --run {run}" for run in result.reopened
        ]
    return site.render(
        request,
        "letters_act.html",
        wanted=wanted,
        more=len(part) == PART,
        begun=part[-1] if part else begun,
        done=done,
        failed=failed,
        total=total,
        problems=problems,
    )


def _next(wanted: _Wanted, begun: int) -> Selection:
    """The letters of the next part: those behind the last part."""
    if wanted.sequences:
        left = [one for one in wanted.sequences if one > begun][:PART]
        # None of them is another selection than all.
        return Selection(sequences=tuple((one, one) for one in left) or ((0, 0),), limit=PART)
    end = wanted.last or 2**63
    return _selection(wanted.filters, sequences=((begun + 1, end),), limit=PART)


PAGE: Final = Page(
    name="letters",
    title="Dead letters",
    look=look,
    filters=(*_FILTERS, "before"),
    every=1.0,
    parts={"letter": show, "picture": picture, "payload": download},
    actions={"ask": ask, "act": act},
)
