"""Stretches: where the time of a request went, by stage, as the records of what came of it tell.

A message waits for a stage from when the record that names it was stored (the root: since the
stream has it) until the record of what became of it there was. So a stretch is waiting, handling
and storing together; of what is not settled there is no record yet. A request that was ended at
once (`atonce`) has none at all: its one stage took from its beginning to its end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mqinfer.completion import roots
from mqinfer.completion.record import Record, decode, firsts, nodes_of
from mqinfer.errors import DecodeError
from mqinfer.requests.kept import root_of

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.requests.state import State
    from mqinfer.streams import Streams


@dataclass(frozen=True, slots=True)
class Stretch:
    """One stage's part in a request.

    Attributes:
        stage: its name.
        messages: that came to it, of the request.
        settled: of them, those that are done.
        dead: of those, the ones that became dead letters.
        began: when the first came, in seconds since the epoch.
        ended: when the last was settled; None while some are not.
        mean: seconds that one took.
    """

    stage: str
    messages: int
    settled: int
    dead: int
    began: float
    ended: float | None
    mean: float | None


async def stretches(app: App, streams: Streams, state: State) -> list[Stretch]:
    """The stages that a request has come to, in the order of its way; none once that is forgotten.

    Raises:
        Unavailable: NATS does not answer.
    """
    found: list[tuple[float, Record]] = []
    stream = roots.stream(app)
    async for stored in streams.messages(stream, roots.subject_of(app, root_of(state))):
        try:
            found += [(stored.time.timestamp(), one) for one in decode(stored.data)]
        except DecodeError:
            continue  # a stranger's
    return of_records(found) or _at_once(app, state)


def of_records(records: Iterable[tuple[float, Record]]) -> list[Stretch]:
    """The same, of records with the times when they were stored. Pure."""
    opened: dict[tuple[str, str], float] = {}
    settled: dict[tuple[str, str], tuple[float, bool]] = {}
    for at, record in records:
        if record.piece is not None:
            continue
        if record.first is not None:
            for node in firsts(record):
                opened.setdefault(node, record.first.published / 1e9)
        for output in record.outputs:
            for node in nodes_of(output, record.kinds[output.kind], record.run):
                opened.setdefault(node, at)
        if record.outcome != "failed":
            settled.setdefault((record.id, record.stage), (at, record.error is not None))
    stages: dict[str, list[tuple[str, str]]] = {}
    for node in sorted(opened, key=lambda one: opened[one]):
        stages.setdefault(node[1], []).append(node)
    return [_stretch(stage, nodes, opened, settled) for stage, nodes in stages.items()]


def _at_once(app: App, state: State) -> list[Stretch]:
    """The one stage of a request that has succeeded without a record."""
    endpoint = app.endpoints.get(state.endpoint)
    if endpoint is None or state.status != "succeeded":
        return []
    stages = [stage.name for stage in app.stages.values() if stage.reads is endpoint.reads]
    took = state.ended - state.created
    return [
        Stretch(name, 1, 1, 0, began=state.created, ended=state.ended, mean=took)
        for name in stages
        if len(stages) == 1
    ]


def _stretch(
    stage: str,
    nodes: list[tuple[str, str]],
    opened: dict[tuple[str, str], float],
    settled: dict[tuple[str, str], tuple[float, bool]],
) -> Stretch:
    done = [node for node in nodes if node in settled]
    took = [max(0.0, settled[node][0] - opened[node]) for node in done]
    return Stretch(
        stage=stage,
        messages=len(nodes),
        settled=len(done),
        dead=sum(settled[node][1] for node in done),
        began=min(opened[node] for node in nodes),
        ended=max(settled[node][0] for node in done) if len(done) == len(nodes) else None,
        mean=sum(took) / len(took) if took else None,
    )
