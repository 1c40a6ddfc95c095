"""What `mqinfer index` does with generations, and what it says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import msgspec

from mqinfer.errors import ConfigurationError
from mqinfer.index import Index
from mqinfer.search.generations import Generation, Generations, Held, declared
from mqinfer.search.roll import Roll, called

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.search.tools import Tools
    from mqinfer.settings import Settings

Chosen = tuple[Index, str]  # an index, and one of its models


class Told(msgspec.Struct):
    """What a command says.

    Attributes:
        facts: for programs.
        head: of the table, for people.
        rows: of the table.
        lines: below it.
        failed: why the command failed; "" where it did not.
    """

    facts: Any
    head: tuple[str, ...] = ()
    rows: list[tuple[str, ...]] = []
    lines: list[str] = []
    failed: str = ""


async def work(
    app: App,
    settings: Settings,
    action: str,
    chosen: Sequence[Chosen],
    changed: Mapping[str, Any],
    number: int | None,
    weights: Mapping[str, float],
    *,
    force: bool,
) -> Told:
    """Do it.

    Args:
        app: whose indexes.
        settings: of the servers.
        action: status, check, build, flip, drop or weights.
        chosen: indexes and models.
        changed: what a generation that is built has otherwise than the app declares it.
        number: of a generation.
        weights: of models, that are set.
        force: flip to what cannot be searched.

    Raises:
        MqinferError: it cannot be done.
    """
    from mqinfer import wiring

    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(wiring.services(app, settings, "index"))
        tools = wiring.keeping(app, services, None, 0.0)
        await tools.generations.ensure()
        if action == "status":
            return await _status(app, tools, chosen)
        if action == "check":
            database = wiring.clickhouse(settings)
            stack.push_async_callback(database.close)
            tools = wiring.keeping(app, services, database, 0.0)
            return await _check(app, tools, chosen, number)
        if action == "weights":
            return await _weights(tools.generations, chosen, weights)
        if action != "build" and len(chosen) > 1:
            raise ConfigurationError(f"{action} is of one model: name INDEX, and --model")
        if action == "build":
            return await _build(tools.generations, chosen, changed)
        return await _change(app, tools, action, *chosen[0], number, force=force)


async def _status(app: App, tools: Tools, chosen: Sequence[Chosen]) -> Told:
    roll = await called(app, tools.core)
    facts: list[dict[str, Any]] = []
    rows: list[tuple[str, ...]] = []
    lines: list[str] = []
    for index, model in chosen:
        held = await tools.generations.held(index, model)
        for generation in held.all.values():
            facts.append(fact := _fact(index, model, held, generation, roll))
            rows += _shown(fact)
            lines += roll.unready(index, model, generation)
        current = held.all.get(held.current)
        if current is not None and _differs(index, current):
            lines.append(
                f"{index.name} {model} is declared otherwise than generation {held.current} was "
                f"built: `mqinfer index APP build {index.name}`"
            )
    return Told(facts, _HEAD, rows, lines)


_HEAD = ("index", "model", "generation", "shard", "replicas", "vectors", "graph", "MB", "lag")


def _fact(
    index: Index, model: str, held: Held, generation: Generation, roll: Roll
) -> dict[str, Any]:
    return {
        "index": index.name,
        "model": model,
        "generation": msgspec.to_builtins(generation),
        "searched": generation.number == held.current,
        "shards": [
            [
                msgspec.to_builtins(one)
                for one in roll.replicas(index.name, model, generation.number, shard)
            ]
            for shard in range(generation.shards)
        ],
    }


def _shown(fact: Mapping[str, Any]) -> list[tuple[str, ...]]:
    number = fact["generation"]["number"]
    found: list[tuple[str, ...]] = []
    for shard, replicas in enumerate(fact["shards"]):
        ready = sum(one["ready"] for one in replicas)
        most = max(replicas, key=lambda one: one["count"], default=None)
        found.append(
            (
                fact["index"],
                fact["model"],
                f"{number} (searched)" if fact["searched"] else f"{number} beside",
                str(shard),
                f"{ready} of {len(replicas)} ready",
                *(
                    (
                        f"{most['count']:,}",
                        f"{most['frozen']:,}",
                        f"{most['nbytes'] / 1e6:,.1f}",
                        str(max(one["lag"] for one in replicas)),
                    )
                    if most
                    else ("-", "-", "-", "-")
                ),
            )
        )
    return found


def _differs(index: Index, generation: Generation) -> bool:
    own = declared(index, 0)
    return (own.shards, own.parameters) != (generation.shards, generation.parameters)


async def _check(app: App, tools: Tools, chosen: Sequence[Chosen], number: int | None) -> Told:
    from mqinfer.search.checking import checked
    from mqinfer.search.searching import Searching

    assert tools.database is not None
    roll = await called(app, tools.core)
    searching = Searching(app, tools.core, tools.generations)
    created = await tools.broker.stream_created(app.name) or ""
    facts, lines, failed = [], list[str](), ""
    for index, model in chosen:
        held = await tools.generations.held(index, model)
        generation = held.all.get(number or held.current)
        if generation is None:
            raise ConfigurationError(f"index {index.name}: {model} has no generation {number}")
        one = await checked(index, model, generation, created, tools.database, searching, roll)
        facts.append({**msgspec.to_builtins(one), "whole": one.whole})
        lines.append(
            f"{index.name} {model}, generation {one.generation}: {one.recorded:,} keys in the "
            f"table, {one.held:,} vectors held, {len(one.refused):,} refused, {one.lacks:,} lacking"
        )
        lines += [f"  refused {key}: {why}" for key, why in one.refused.items()]
        lines += [f"  lacking {key}" for key in one.lacking if key not in one.refused]
        lines += [f"  shard {shard} did not answer" for shard in one.missing]
        failed = failed or ("" if one.whole else f"index {index.name} is not whole")
    return Told(facts, lines=lines, failed=failed)


async def _weights(
    generations: Generations, chosen: Sequence[Chosen], weights: Mapping[str, float]
) -> Told:
    indexes = {index.name: index for index, _ in chosen}
    if weights and len(indexes) > 1:
        raise ConfigurationError("weights are of one index: name it")
    facts, lines = {}, []
    for name, index in indexes.items():
        if weights:
            await generations.weigh(index, weights)
        facts[name] = await generations.weights(index)
        told = ", ".join(f"{model}={weight:g}" for model, weight in facts[name].items())
        lines.append(f"{name}: {told}")
    return Told(facts, lines=lines)


async def _build(
    generations: Generations, chosen: Sequence[Chosen], changed: Mapping[str, Any]
) -> Told:
    facts, lines = [], []
    for index, model in chosen:
        made = await generations.build(index, model, changed)
        facts.append({"index": index.name, "model": model, **msgspec.to_builtins(made)})
        lines.append(
            f"generation {made.number} of {index.name} {model} is built beside the one that is "
            f"searched: `mqinfer index APP status`, then `mqinfer index APP flip {index.name}`"
        )
    return Told(facts, lines=lines)


async def _change(
    app: App,
    tools: Tools,
    action: str,
    index: Index,
    model: str,
    number: int | None,
    *,
    force: bool,
) -> Told:
    held = await tools.generations.held(index, model)
    if number is None and action == "drop":
        raise ConfigurationError("say which one: --to N")
    wanted = max(held.all) if number is None else number
    fact = {"index": index.name, "model": model, "generation": wanted}
    if action == "drop":
        await tools.generations.drop(index, model, wanted, tools.store)
        return Told(fact, lines=[f"generation {wanted} of {index.name} {model} is dropped"])
    if wanted in held.all and not force:
        (await called(app, tools.core)).check(index, model, held.all[wanted])
    before = await tools.generations.flip(index, model, wanted)
    return Told(
        {**fact, "before": before},
        lines=[
            f"{index.name} {model}: searches go to generation {wanted} within two seconds. "
            f"Generation {before} stays beside, to flip back: `mqinfer index APP drop "
            f"{index.name} --to {before}` frees its memory"
        ],
    )
