"""The pipeline under test, and what must come out of it as a pure function.

    source ──> [split] ──> part ──┬─> [square]  async ────┐
              (1 to 1..3)         ├─> [cube]    a thread ─┼─> term ──> [judge] ──> answer ──> table
                   │              └─> [score]   Triton ───┘           (batches)
                   └──> odd ──────┬─> [carry]   odd values ──> oddity ──> table
             (of some inputs)     ├─> [speak]   early outputs ─┬─> word ──> table
                                  └─> [note]    ctx.emit ──────┘

Every input has known rows and known dead letters; nothing here depends on time or chance. What
befalls its messages on the way (see `ordinary`) makes no difference to them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from mqinfer import App, Context, Message, Reject, Rejected, Row
from mqinfer.backoff import Backoff
from mqinfer.identity import output_id

from .odd import Odd, Oddity, expected_row, odd_of, row_of
from .ordinary import ACK_WAIT, live

REPLICAS = int(os.environ.get("FAULTS_REPLICAS", "1"))
# Of this code: a deployment goes from one to the other and back, worker by worker.
VERSION = int(os.environ.get("FAULTS_VERSION", "1"))
MODEL = "affine"
# Of `score`, in seconds: a model may be slower than that for a while. It spends attempts then.
PATIENCE = 1.5 * ACK_WAIT

# Messages that a worker takes at once, of a stage. A steady one takes few, or it would do all the
# work while the others are away.
ROOM = int(os.environ.get("FAULTS_ROOM", "200"))

# Inputs that are refused by `split`, and one term of some inputs that is refused in a batch.
REFUSED_EVERY, REFUSED_TERM_EVERY = 97, 61
# Inputs that have odd values beside their parts.
ODD_EVERY = 7
SPOKEN, NOTED = 4, 2  # words
KINDS = ("square", "cube", "score")  # of terms

app = App("faults", replicas=REPLICAS, max_age="1d", duplicate_window="2m")
affine = app.model(MODEL)

LIMITS: dict[str, Any] = {"ack_wait": ACK_WAIT, "backoff": Backoff(initial=0.2, maximum=2.0)}


class Source(Message, subject="source"):
    """An input."""

    number: int


class Part(Message, subject="part"):
    """One of the parts of an input."""

    number: int
    index: int


class Term(Message, subject="term", key="kind"):
    """What one of the parallel stages makes of a part."""

    number: int
    index: int
    kind: str
    value: int
    if VERSION > 1:
        extra: int | None = None


class Answer(Row, table="answer", order_by=("number", "index")):
    """A term that was judged."""

    number: int
    index: int
    kind: str
    value: int
    if VERSION > 1:
        extra: int | None = None


class Word(Row, table="word", order_by=("number", "speaker", "place")):
    """An output that left before its handler was done."""

    number: int
    speaker: str
    place: int
    text: str


def parts_of(number: int) -> int:
    """How many parts an input has."""
    return 1 + number % 3


def is_odd(number: int) -> bool:
    """Whether an input has odd values, too."""
    return number % ODD_EVERY == 0


def value_of(kind: str, number: int, index: int) -> int:
    """What a stage makes of a part."""
    base = (7 * number + index) % 1000
    return {"square": base * base, "cube": base**3, "score": 2 * base + 1}[kind]


def extra_of(number: int) -> int:
    """What the second version of the code adds; the first one drops it."""
    return number % 11


def text_of(number: int, place: int) -> str:
    """A word."""
    return f"{number} says {place}"


@app.stage(max_in_flight=ROOM, **LIMITS)
async def split(source: Source, ctx: Context) -> AsyncIterator[Part | Odd]:
    """One to many."""
    number = source.number
    if number % REFUSED_EVERY == REFUSED_EVERY - 1:
        raise Reject("this input is never answered")
    await asyncio.sleep(live("split", ctx.attempt, number))
    for index in range(parts_of(number)):
        yield Part(number, index)
    if is_odd(number):
        yield odd_of(number)


@app.stage(max_in_flight=ROOM, **LIMITS)
async def square(part: Part, ctx: Context) -> Term:
    """On the event loop."""
    await asyncio.sleep(live("square", ctx.attempt, part.number, part.index))
    return _term("square", part)


@app.stage(max_in_flight=ROOM, concurrency=4, **LIMITS)
def cube(part: Part, ctx: Context) -> Term:
    """In a thread."""
    time.sleep(live("cube", ctx.attempt, part.number, part.index))
    return _term("cube", part)


@app.stage(max_in_flight=ROOM, timeout=PATIENCE, attempts=15, **LIMITS)
async def score(part: Part, ctx: Context) -> Term:
    """On Triton."""
    seconds = live("score", ctx.attempt, part.number, part.index)
    await asyncio.sleep(seconds)
    if seconds:
        ctx.progress()  # the model has all of the stage's time
    base = (7 * part.number + part.index) % 1000
    answer = await affine(x=np.array([base], dtype=np.float32))
    return _term("score", part, round(float(answer["y"][0])))


@app.stage(batch_size=64, batch_wait=0.02, max_in_flight=2 * ROOM, **LIMITS)
async def judge(terms: list[Term], contexts: list[Context]) -> list[Answer | Rejected]:
    """In batches; one bad term never costs its neighbours."""
    for term, ctx in zip(terms, contexts, strict=True):
        live("judge", ctx.attempt, term.number, _place(term.index, term.kind))
    return [
        Rejected("this term is never answered")
        if refused_term(term.number, term.index, term.kind)
        else Answer(term.number, term.index, term.kind, term.value, *_extra_of(term))
        for term in terms
    ]


@app.stage(max_in_flight=max(1, ROOM // 4), **LIMITS)
async def carry(odd: Odd, ctx: Context) -> Oddity:
    """Values as they are."""
    await asyncio.sleep(live("carry", ctx.attempt, odd.number))
    return await row_of(odd)


@app.stage(early=True, max_in_flight=max(1, ROOM // 4), **LIMITS)
async def speak(odd: Odd, ctx: Context) -> AsyncIterator[Word]:
    """Each output leaves at once; a handler that fails half way says the rest next time."""
    for place in range(SPOKEN):
        if place == SPOKEN // 2:
            await asyncio.sleep(live("speak", ctx.attempt, odd.number))
        yield Word(odd.number, "speak", place, text_of(odd.number, place))


@app.stage(max_in_flight=max(1, ROOM // 4), **LIMITS)
async def note(odd: Odd, ctx: Context) -> Word:
    """One output leaves at once, the other one when the handler is done."""
    await ctx.emit(Word(odd.number, "note", 0, text_of(odd.number, 0)))
    live("note", ctx.attempt, odd.number)
    return Word(odd.number, "note", 1, text_of(odd.number, 1))


def refused_term(number: int, index: int, kind: str) -> bool:
    """Whether `judge` refuses a term."""
    return index == 0 and kind == "square" and number % REFUSED_TERM_EVERY == 0


def _place(index: int, kind: str) -> int:
    """The index of a term among all of its input."""
    return len(KINDS) * index + KINDS.index(kind)


def _term(kind: str, part: Part, value: int | None = None) -> Term:
    if value is None:
        value = value_of(kind, part.number, part.index)
    more = (extra_of(part.number),) if VERSION > 1 else ()
    return Term(part.number, part.index, kind, value, *more)


def _extra_of(term: Term) -> tuple[int | None, ...]:
    return (term.extra,) if VERSION > 1 else ()


# --- what must come out -------------------------------------------------------------------------


class Expected(NamedTuple):
    """The rows (table and values) and the dead letters (stage, kind, id)."""

    rows: set[tuple[Any, ...]]
    dead: set[tuple[str, str, str]]


def source_id(number: int) -> str:
    """The id that the producer gives an input."""
    return f"in-{number}"


def expected(numbers: Iterable[int]) -> Expected:
    """What these inputs must become, each exactly once."""
    rows: set[tuple[Any, ...]] = set()
    dead: set[tuple[str, str, str]] = set()
    for number in numbers:
        if number % REFUSED_EVERY == REFUSED_EVERY - 1:
            dead.add(("split", "rejected", source_id(number)))
            continue
        for index, kind in _branches(number):
            if refused_term(number, index, kind):
                part = output_id(source_id(number), "split", None, index)
                dead.add(("judge", "rejected", output_id(part, kind, None, 0)))
            else:
                rows.add(("answer", number, index, kind, value_of(kind, number, index)))
        if is_odd(number):
            rows.add(expected_row(number))
            for speaker, count in (("speak", SPOKEN), ("note", NOTED)):
                rows |= {("word", number, speaker, n, text_of(number, n)) for n in range(count)}
    return Expected(rows, dead)


def _branches(number: int) -> Iterator[tuple[int, str]]:
    for index in range(parts_of(number)):
        for kind in KINDS:
            yield index, kind


def messages(numbers: Iterable[int]) -> Iterator[tuple[str, int, int]]:
    """The messages (stage, number, index) that something befalls, or may befall."""
    for number in numbers:
        if number % REFUSED_EVERY == REFUSED_EVERY - 1:
            continue
        yield "split", number, 0
        for index, kind in _branches(number):
            yield kind, number, index
            yield "judge", number, _place(index, kind)
        if is_odd(number):
            yield from ((stage, number, 0) for stage in ("carry", "speak", "note"))
