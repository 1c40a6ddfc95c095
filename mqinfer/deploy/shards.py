"""Shards: what a deployment does to indexes: processes, generations, weights. Pure.

Other shards, or vectors of another type, are another generation: it is built beside the one that is
searched, and searches go to it by a further `apply`, once it is read. A generation that is there
already is not built again, so going back is as quick.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from mqinfer.deploy.change import Change, Kind, arrow
from mqinfer.times import span

if TYPE_CHECKING:
    from mqinfer.deploy.applied import Applied
    from mqinfer.deploy.declaration import Declaration, IndexFacts
    from mqinfer.deploy.deployment import Deployment, Held
    from mqinfer.deploy.live import Live, LiveIndex, LiveModel
    from mqinfer.search.generations import Generation

_A_SECOND: Final = 3600  # vectors of 1,280 numbers that one processor puts into a graph
_BYTES: Final = {"f32": 4, "bf16": 2, "f16": 2, "i8": 1}
_REPLACED: Final = "its processes are replaced one by one; no search misses a shard"


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done with the generations of a model.

    Attributes:
        kind: none; build another; flip to one; or wait until that is read.
        number: of the one to flip to, or to wait for.
    """

    kind: Literal["none", "build", "flip", "wait"]
    number: int = 0


def wanted(facts: IndexFacts, held: Held) -> dict[str, Any]:
    """What a generation is to have, by field."""
    given = {"shards": held.shards, "dtype": held.dtype}
    own = {name: value for name, value in given.items() if value is not None}
    return {"shards": facts.shards, **facts.parameters, **own}


def step(model: LiveModel, fields: dict[str, Any]) -> Step:
    """What is to be done, so that a generation of these fields is searched."""
    current = model.all.get(model.current)
    if current is None or _has(current, fields):
        return Step("none")
    for number in sorted(model.all, reverse=True):
        one = model.all[number]
        if _has(one, fields) and _of(one) == _of(current):
            return Step("flip" if number in model.ready else "wait", number)
    return Step("build")


def pinned(model: LiveModel) -> dict[str, Any]:
    """What the next generation has of the one that is searched: whose vectors it takes."""
    current = model.all.get(model.current)
    names = ("model", "version", "run")
    return {} if current is None else {name: getattr(current, name) for name in names}


def _has(one: Generation, fields: dict[str, Any]) -> bool:
    return all(getattr(one, name) == value for name, value in fields.items())


def _of(one: Generation) -> tuple[str, str, str]:
    return one.model, one.version, one.run


def index_changes(
    before: Applied | None, after: Deployment, declared: Declaration, live: Live
) -> Iterator[Change]:
    """What happens to indexes.

    Args:
        before: what was applied last; None if nothing was.
        after: what is wanted.
        declared: what the code declares now.
        live: what there is.
    """
    old = before.deployment.indexes if before else {}
    for name, held in after.indexes.items():
        where, facts = f"index {name}", declared.indexes[name]
        there = live.indexes.get(name)
        then = old.get(name)
        if then is None:
            yield Change(Kind.BEGIN, where, "new", _begins(held, facts))
        else:
            yield from _processes(where, then, held)
            if there is not None:
                yield from _missing(where, held, there)
        if before is not None and (known := before.declaration.indexes.get(name)) is not None:
            yield from _declared(where, known, facts)
        if there is not None:
            yield from _generations(where, held, facts, there)
            for model, weight in held.weights.items():
                now = there.weights.get(model, 1.0)
                if now != weight:
                    what = f"weight of {model} {now:g} -> {weight:g}"
                    yield Change(Kind.SWITCH, where, what, "searches heed it within two seconds")
    for name in old:
        if name not in after.indexes:
            text = "its processes end, and nobody answers searches of it; its snapshots stay"
            yield Change(Kind.REMOVE, f"index {name}", "removed", text)


def _begins(held: Held, facts: IndexFacts) -> str:
    count = held.parts * held.replicas
    shards = wanted(facts, held)["shards"]
    return (
        f"{count} process{'' if count == 1 else 'es'} hold{'s' if count == 1 else ''} {shards} "
        f"shard{'' if shards == 1 else 's'} of {', '.join(facts.models)}, and answer when all that "
        "there is is read"
    )


def _processes(where: str, then: Held, now: Held) -> Iterator[Change]:
    if then.replicas != now.replicas:
        text = "they are asked once they have read their shards; those that run go on"
        if now.replicas < then.replicas:
            text = "the others answer; those that end write what is new"
        yield Change(Kind.SCALE, where, f"replicas {then.replicas} -> {now.replicas}", text)
    if then.parts != now.parts:
        text = "shards change processes: until these have read them, searches name what is missing"
        yield Change(Kind.RESTART, where, f"parts {then.parts} -> {now.parts}", text)
    if then.snapshot_every != now.snapshot_every:
        what = f"snapshot_every {span(then.snapshot_every)} -> {span(now.snapshot_every)}"
        yield Change(Kind.RESTART, where, what, _REPLACED)
    for name in ("cpu", "memory"):
        if (old := getattr(then, name)) != (new := getattr(now, name)):
            yield Change(Kind.RESTART, where, f"{name} {arrow(old, new)}", _REPLACED)


def _missing(where: str, held: Held, there: LiveIndex) -> Iterator[Change]:
    """What was applied, and does not run."""
    replicas = min((model.replicas for model in there.models.values()), default=0)
    if replicas < held.replicas:
        what = f"{replicas} of {held.replicas} replicas run"
        yield Change(Kind.BEGIN, where, what, f"{held.replicas - replicas} begin")


def _declared(where: str, then: IndexFacts, now: IndexFacts) -> Iterator[Change]:
    for model in now.models:
        if model not in then.models:
            text = "a generation of its own begins, and searches may name it"
            yield Change(Kind.BEGIN, where, f"model {model} new", text)
    for model in then.models:
        if model not in now.models:
            text = "it is searched no more; its table, or its messages, stay"
            yield Change(Kind.REMOVE, where, f"model {model} removed", text)
    if then.filters != now.filters:
        names = (", ".join(one.filters) or None for one in (then, now))
        what = f"filters {arrow(*names)}"
        text = f"{_REPLACED}; each reads its vectors anew, as snapshots lack the new fields"
        yield Change(Kind.RESTART, where, what, text)
    for name in ("key", "vector"):
        if (old := getattr(then, name)) != (new := getattr(now, name)):
            text = "what was read is by the old one: give the index another name"
            yield Change(Kind.REFUSED, where, f"{name} {old} -> {new}", text)


def _generations(where: str, held: Held, facts: IndexFacts, there: LiveIndex) -> Iterator[Change]:
    fields = wanted(facts, held)
    for name, model in there.models.items():
        next_step, current = step(model, fields), model.all.get(model.current)
        if current is None or next_step.kind == "none":
            continue
        differs = [
            f"{one} {getattr(current, one)} -> {value}"
            for one, value in fields.items()
            if getattr(current, one) != value
        ]
        what = f"{name}: {' and '.join(differs)}"
        number = next_step.number
        if next_step.kind == "flip":
            text = (
                f"searches go to generation {number} within two seconds; {model.current} stays, "
                f"to go back: `mqinfer index APP drop --to {model.current}` frees its memory"
            )
            yield Change(Kind.SWITCH, where, what, text)
        elif next_step.kind == "wait":
            text = f"generation {number} is not read yet: apply again when it is"
            yield Change(Kind.BUILD, where, what, text)
        else:
            yield Change(Kind.BUILD, where, what, _built(model, current, fields))


def _built(model: LiveModel, current: Generation, fields: dict[str, Any]) -> str:
    nbytes = model.nbytes * _BYTES[fields["dtype"]] / _BYTES[current.dtype]
    graphs = model.vectors > fields["exact_below"] * fields["shards"]
    minutes = model.vectors / _A_SECOND / 60 if graphs else 0
    cost = f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:.1f} MB"
    time = f"some {minutes:.0f} minutes of a processor" if minutes >= 1 else "less than a minute"
    return (
        f"generation {max(model.all) + 1} is read beside {model.current}, {model.vectors:,} "
        f"vectors, {cost} more in memory, {time}; no search notices; apply again when it is read, "
        "and searches go there"
    )
