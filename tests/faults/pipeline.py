"""The pipeline under test, and what must come out of it as a pure function.

    source ──> [split] ──> part ──┬─> [square]  async ────┐
              (1 to 1..3)         ├─> [cube]    a thread ─┼─> term ──> [judge] ──> answer ──> table
                                  └─> [score]   Triton ───┘           (batches)

Every input has known rows and known dead letters; nothing here depends on time or chance.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mqinfer import App, Message, Reject, Rejected, Row
from mqinfer.backoff import Backoff
from mqinfer.identity import output_id

ACK_WAIT = float(os.environ.get("FAULTS_ACK_WAIT", "3"))
REPLICAS = int(os.environ.get("FAULTS_REPLICAS", "1"))
MODEL = "affine"

# Inputs that are refused by `split`, and one term of some inputs that is refused in a batch.
REFUSED_EVERY, REFUSED_TERM_EVERY = 97, 61

app = App("faults", replicas=REPLICAS, max_age="1d", duplicate_window="2m")
affine = app.model(MODEL)

LIMITS = {"ack_wait": ACK_WAIT, "backoff": Backoff(initial=0.2, maximum=2.0)}


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


class Answer(Row, table="answer", order_by=("number", "index")):
    """A term that was judged."""

    number: int
    index: int
    kind: str
    value: int


def parts_of(number: int) -> int:
    """How many parts an input has."""
    return 1 + number % 3


def value_of(kind: str, number: int, index: int) -> int:
    """What a stage makes of a part."""
    base = (7 * number + index) % 1000
    return {"square": base * base, "cube": base**3, "score": 2 * base + 1}[kind]


@app.stage(max_in_flight=200, **LIMITS)
async def split(source: Source) -> AsyncIterator[Part]:
    """One to many."""
    if source.number % REFUSED_EVERY == REFUSED_EVERY - 1:
        raise Reject("this input is never answered")
    for index in range(parts_of(source.number)):
        yield Part(source.number, index)


@app.stage(max_in_flight=200, **LIMITS)
async def square(part: Part) -> Term:
    """On the event loop."""
    return _term("square", part)


@app.stage(max_in_flight=200, concurrency=4, **LIMITS)
def cube(part: Part) -> Term:
    """In a thread."""
    return _term("cube", part)


@app.stage(max_in_flight=200, **LIMITS)
async def score(part: Part) -> Term:
    """On Triton."""
    base = (7 * part.number + part.index) % 1000
    answer = await affine(x=np.array([base], dtype=np.float32))
    return Term(part.number, part.index, "score", round(float(answer["y"][0])))


@app.stage(batch_size=64, batch_wait=0.02, max_in_flight=400, **LIMITS)
async def judge(terms: list[Term]) -> list[Answer | Rejected]:
    """In batches; one bad term never costs its neighbours."""
    return [
        Rejected("this term is never answered")
        if refused_term(term.number, term.index, term.kind)
        else Answer(term.number, term.index, term.kind, term.value)
        for term in terms
    ]


def refused_term(number: int, index: int, kind: str) -> bool:
    """Whether `judge` refuses a term."""
    return index == 0 and kind == "square" and number % REFUSED_TERM_EVERY == 0


def _term(kind: str, part: Part) -> Term:
    return Term(part.number, part.index, kind, value_of(kind, part.number, part.index))


# --- what must come out -------------------------------------------------------------------------


class Expected(NamedTuple):
    """The rows (number, index, kind, value) and the dead letters (stage, kind, id)."""

    rows: set[tuple[int, int, str, int]]
    dead: set[tuple[str, str, str]]


def source_id(number: int) -> str:
    """The id that the producer gives an input."""
    return f"in-{number}"


def expected(numbers: Iterable[int]) -> Expected:
    """What these inputs must become, each exactly once."""
    rows: set[tuple[int, int, str, int]] = set()
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
                rows.add((number, index, kind, value_of(kind, number, index)))
    return Expected(rows, dead)


def _branches(number: int) -> Iterator[tuple[int, str]]:
    for index in range(parts_of(number)):
        for kind in ("square", "cube", "score"):
            yield index, kind


# --- the model ----------------------------------------------------------------------------------


def build_models(repository: Path) -> None:
    """Write the Triton repository with the one model: y = 2 x + 1."""
    from tests.support.models import save_affine

    save_affine(repository, MODEL)
