"""Duplicates: the stages that find near-duplicates, and what an app declares to have them.

    duplicates = near_duplicates(app)             # in the app's module

    @app.stage
    async def look(photo: Photo, ctx: Context) -> Fingerprint:
        data = await photo.image.bytes()
        return await asyncio.to_thread(fingerprint, data, picture=photo.name, order=ctx.sequence)

Three stages follow. `<name>_enter` takes each fingerprint to its picture, which is known by its
bytes; `<name>_pictures` remembers each picture, and decides (`standing`); in `<name>_parts` those
that may be near meet (`parts`). All that is remembered is a state by key, so it is spread over all
workers, and each message changes it once. Decisions are rows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

import mqinfer
from mqinfer.context import Context
from mqinfer.dedup.looks import Fingerprint, fingerprint
from mqinfer.dedup.parts import Met, Part, meet
from mqinfer.dedup.standing import (
    Ask,
    Found,
    Rule,
    Seen,
    Standing,
    Verdict,
    What,
    Word,
    probed,
    settle,
    take,
    told,
)
from mqinfer.errors import ConfigurationError, Reject, WiringError
from mqinfer.message import Message, Row

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.client import Client

__all__ = ["Duplicates", "Fingerprint", "fingerprint", "near_duplicates"]

_CONTENT: Final = frozenset("0123456789abcdef")


class Note(Message, key="content", ordered=True, wire="msgpack"):
    """What a picture is told. Each set of stages derives its own, as of all these types."""

    content: str
    what: What


class Probe(Message, key="part", ordered=True, wire="msgpack"):
    """A picture goes into a part."""

    part: str
    content: str
    order: int
    looks: str


@dataclass(frozen=True)
class Duplicates:
    """Near-duplicates of an app.

    Attributes:
        name: of these stages.
        note: the type of what a picture is told.
        seen: row type, one for each time that a picture was given: `picture`, `content`, `order`.
        decision: row type, one for each decision: `content`, its `original`, `why` ("", "hash",
            "vector" or "person"), `bits` and `distance` (-1 where there is none), `said`,
            `revision`. The one with the highest (`said`, `revision`) stands.
        said: row type, what people said: `content`, `other`, `same`, `by`, `said`.
    """

    name: str
    note: type[Note]
    seen: type[Row]
    decision: type[Row]
    said: type[Row]

    async def say(
        self,
        client: Client,
        one: str,
        other: str,
        *,
        same: bool,
        by: str,
        id: str | None = None,  # noqa: A002
    ) -> str:
        """A person's word on two pictures: it stands, whatever is replayed or comes later.

        Args:
            client: of the app.
            one: SHA-256 of its bytes, as in `content`.
            other: so.
            same: whether they are the same, or are both to be kept.
            by: who says so.
            id: of the word; the same one is the same word.

        Returns:
            Its id.

        Raises:
            ConfigurationError: these are no two pictures.
        """
        if one == other or not (_is_content(one) and _is_content(other)):
            raise ConfigurationError(
                "a word is about two pictures, by the SHA-256 of their bytes (64 hexadecimal "
                f"digits each), not {one!r} and {other!r}"
            )
        first, second = sorted((one, other))  # so that all words on the two are in one order
        return await client.publish(self.note(first, Word(second, same, by)), id=id)

    @property
    def sql(self) -> str:
        """A query of ClickHouse: `picture`, `content` and `original`, which is a picture as well.

        It says of each picture that was given which one it is a duplicate of: the earliest with the
        bytes of its original; itself, if it is none.
        """
        name = self.name
        return f"""\
WITH standing AS (
    SELECT content, argMax(original, (said, revision)) AS original FROM {name}_decision
    GROUP BY content
), earliest AS (
    SELECT content, argMin(picture, (`order`, picture)) AS picture FROM {name}_seen
    GROUP BY content
)
SELECT seen.picture AS picture, seen.content AS content, earliest.picture AS original
FROM {name}_seen AS seen
JOIN standing ON standing.content = seen.content
JOIN earliest ON earliest.content = standing.original"""


def near_duplicates(
    app: App,
    name: str = "dedup",
    *,
    of: type[Fingerprint] = Fingerprint,
    bits: int = 8,
    matching: int = 1,
    cosine: float = 0.05,
    words_from: Sequence[str] = (),
    **limits: Any,
) -> Duplicates:
    """Let an app find near-duplicates among the fingerprints that a stage of it returns.

    Args:
        app: whose.
        name: what the stages and tables begin with. Another rule, or another model's vectors, take
            another name: they begin with the oldest fingerprint there is, unless `start=` says
            otherwise.
        of: the type of the fingerprints; one derived from `Fingerprint` for another model's.
        bits: of 64, in which the hashes of near pictures differ at most.
        matching: blocks of the hash that a part consists of. 1 makes `bits + 1` messages a picture,
            for 100,000 pictures or so; 2 makes (bits + 1)(bits + 2) / 2, for many more.
        cosine: distance (1 - cosine) at most of the vectors, where both have one.
        words_from: other names of near-duplicates of this app; what people have said on a picture
            there counts when it is first seen here.
        limits: of the three stages, as `app.stage` takes them (`ack_wait` and the others).

    Raises:
        WiringError: these numbers cannot be.
    """
    if not 0 <= bits <= 16 or not 1 <= matching <= 3:
        raise WiringError(f"{name}: bits={bits} must be 0 to 16, matching={matching} 1 to 3")
    if not 0 <= cosine <= 2:
        raise WiringError(f"{name}: cosine={cosine} must be a distance, 0 to 2")
    rule = Rule(bits, matching, cosine)
    limits = {"start": "oldest", **limits}

    class TheNote(
        Note, subject=f"{name}_note", key="content", ordered=True, wire="msgpack", frozen=True
    ):
        pass

    class TheProbe(
        Probe, subject=f"{name}_probe", key="part", ordered=True, wire="msgpack", frozen=True
    ):
        pass

    class Given(Row, table=f"{name}_seen", order_by=("content", "picture"), frozen=True):
        picture: str
        content: str
        order: int

    class Decision(Row, table=f"{name}_decision", order_by=("content",), frozen=True):
        content: str
        original: str
        why: str
        bits: int
        distance: float
        said: int
        revision: int

    class Said(Row, table=f"{name}_said", order_by=("content", "other"), frozen=True):
        content: str
        other: str
        same: bool
        by: str
        said: int

    @asynccontextmanager
    async def words() -> AsyncIterator[_Words]:
        async with AsyncExitStack() as stack:
            yield _Words(app, name, words_from, stack)

    def notes(sends: Iterator[tuple[str, What]]) -> Iterator[TheNote]:
        return (TheNote(content, what) for content, what in sends)

    @app.stage(name=f"{name}_enter", **limits)
    async def enter(seen: of) -> list[TheNote | Given]:  # type: ignore[valid-type]
        one: Fingerprint = seen
        if not _is_content(one.content) or (one.looks and not _is_hash(one.looks)):
            raise Reject(f"picture {one.picture}: its content or looks are none of a fingerprint")
        note = TheNote(one.content, Seen(one.order, one.looks, one.vector))
        return [note, Given(one.picture, one.content, one.order)]

    @app.stage(name=f"{name}_pictures", lifespan=words, **limits)
    async def pictures(
        note: TheNote, standing: Standing, ctx: Context
    ) -> list[TheNote | TheProbe | Decision | Said]:
        me, before = note.content, standing.order
        out: list[TheNote | TheProbe | Decision | Said] = []
        for what in await _with_words(note, standing, ctx):
            if isinstance(what, Word) and what.other != me:
                if not what.order:  # from the person: the other one hears of it from here
                    what = msgspec.structs.replace(what, order=ctx.sequence)
                    handed = Word(me, what.same, what.by, what.order)
                    out.append(TheNote(what.other, handed))
                out.append(Said(me, what.other, what.same, what.by, what.order))
            out += notes(take(me, standing, what, rule))
        if standing.order != before and standing.order is not None:
            parts = probed(standing, rule)
            out += (TheProbe(part, me, standing.order, standing.looks) for part in parts)
        if (found := settle(me, standing)) is None:
            return out
        if isinstance(found, str):
            standing.others[found].asked = True
            return [*out, TheNote(found, Ask(me))]
        if decided(standing, found):
            out += (TheNote(asker, told(me, standing)) for asker in standing.askers)
            bits = -1 if found.other.bits is None else found.other.bits
            distance = -1.0 if found.other.distance is None else found.other.distance
            row = (found.original, found.why, bits, distance, standing.said, standing.revision)
            out.append(Decision(me, *row))
        return out

    @app.stage(name=f"{name}_parts", **limits)
    async def parts(probe: TheProbe, part: Part) -> list[TheNote]:
        me = (probe.order, probe.content)
        earlier, later = meet(part, probe.part, me, probe.looks, rule.bits, rule.matching)
        return [
            TheNote(probe.content, Found(probe.part, earlier)),
            *(TheNote(met.content, Found("", [Met(*me[::-1], met.bits)])) for met in later),
        ]

    return Duplicates(name, TheNote, Given, Decision, Said)


def decided(standing: Standing, verdict: Verdict) -> bool:
    """Whether a verdict is another than the one before, or on another word; it is kept."""
    said = max((word.order for word in standing.words.values()), default=0)
    new = (verdict.original, verdict.why, said)
    if new == (standing.original, standing.why, standing.said):
        return False
    standing.original, standing.why, standing.said = new
    standing.revision += 1
    return True


async def _with_words(note: Note, standing: Standing, ctx: Context) -> list[What]:
    """What a note says, and what people said before, where these stages were not told of it."""
    if not isinstance(note.what, Seen) or standing.order is not None:
        return [note.what]
    words: _Words = ctx.state
    return [*await words.of(note.content, run=ctx.run is not None), note.what]


class _Words:
    """People's words that other stages keep: of a run the live ones, and those of other names."""

    def __init__(self, app: App, name: str, others: Sequence[str], stack: AsyncExitStack):
        self._app = app
        self._own = name
        self._others = others
        self._stack = stack
        self._client: Client | None = None

    async def of(self, content: str, *, run: bool) -> list[Word]:
        """What was said of a picture."""
        names = [*([self._own] if run else []), *self._others]
        if not names:
            return []
        if self._client is None:
            self._client = await self._stack.enter_async_context(mqinfer.connect(self._app))
        found: list[Word] = []
        for name in names:
            kept = await self._client.state(f"{name}_pictures", content, Standing)
            found += [] if kept is None else kept.words.values()
        return found


def _is_content(text: str) -> bool:
    return len(text) == 64 and _CONTENT.issuperset(text)


def _is_hash(text: str) -> bool:
    return len(text) == 16 and _CONTENT.issuperset(text)
