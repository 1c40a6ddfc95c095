"""Check: everything about an app that can be known before it runs, without changing anything.

Each problem is one line that begins with the stage, sink or server it is about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from mqinfer import plan
from mqinfer.errors import BadTensor, ConfigurationError, MqinferError, Unavailable
from mqinfer.inference import padding
from mqinfer.inference.callsites import model_calls
from mqinfer.inference.streaming import take_stream
from mqinfer.marker import mismarked
from mqinfer.message import Row
from mqinfer.model import Model, Tensor
from mqinfer.monitor.places import foresee_counts
from mqinfer.monitor.watched import watched
from mqinfer.ports import (
    Database,
    InferenceServer,
    ModelInfo,
    TensorInfo,
)
from mqinfer.readable import unreadable
from mqinfer.state.reading import unreadable as unreadable_states
from mqinfer.tables.foresee import foresee
from mqinfer.tables.tables import schema_of
from mqinfer.worker import known
from mqinfer.worker.survey import survey

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.stage import Stage
    from mqinfer.streams import Streams


_STATES = 1_000  # of a stage, that are read


@dataclass(slots=True)
class Report:
    """What was found.

    Attributes:
        problems: a line each.
        checked: what was looked at and is sound, for the user's trust.
        notes: what a user should know, and is no problem.
    """

    problems: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def found(self, where: str, problem: object) -> None:
        """Add a problem, on one line, once."""
        text = f"{where}: {' '.join(str(problem).split())}" if where else str(problem)
        if text not in self.problems:
            self.problems.append(text)

    def server(self, name: str, error: object, users: Iterable[str]) -> None:
        """Add that a server does not answer, or refuses these credentials."""
        text = " ".join(str(error).split())
        if text.lower().startswith(f"{name.lower()} at "):
            text = text[len(name) + 1 :]
        needed = ", ".join(users)
        self.found(f"{name} (needed by {needed})" if needed else name, text)

    def join(self, other: Report) -> None:
        """Add what another report holds."""
        for problem in other.problems:
            self.found("", problem)
        self.checked += other.checked
        self.notes += other.notes


# A check of one server: it writes what it finds to the report that it is given.
Check = Callable[[Report], Awaitable[None]]


def check_wiring(app: App) -> tuple[Report, dict[str, Stage]]:
    """The app by itself, and the stages that are declared well enough to be looked at further."""
    report = Report()
    stages, problems = app.resolve()
    for problem in problems:
        report.found("", " ".join(str(problem).split()))
    if not stages and not problems:
        report.found(f"app {app.name}", "it has no stages; declare one with @app.stage")
    for table, (row, users) in _tables(stages).items():
        if unreadable(row) or mismarked(row):
            continue  # said above
        try:
            schema_of(row)
        except ConfigurationError as error:
            report.found(f"stage {', '.join(users)}: table {table}", error)
    if not problems:
        for problem in watched(app)[1]:
            report.found("", problem)
    if not report.problems:
        report.checked.append(f"wiring of {len(stages)} stages: {', '.join(stages)}")
    return report, stages


async def check_streams(app: App, streams: Streams, report: Report) -> None:
    """Whether a worker could make or change the app's streams and consumers."""
    before = len(report.problems)
    try:
        tasks, specs = plan.tasks(app), plan.stream_specs(app)
    except ConfigurationError:  # reported by `check_wiring`
        tasks, specs = [], [plan.stream_spec(app), plan.dead_stream_spec(app)]
    if plan.uses_timers(app) and (refusal := streams.no_timers()) is not None:
        report.found(f"app {app.name}", refusal)
    for spec in specs:
        for conflict in await streams.stream_conflicts(spec):
            report.found(f"app {app.name}", conflict)
    if not tasks:
        return
    for task in tasks:
        if task.ordered:
            for conflict in await streams.stream_conflicts(plan.copy_spec(app, task.reads)):
                report.found(f"stage {task.name}", conflict)
        for consumer in plan.consumer_specs(app, task):
            for conflict in await streams.consumer_conflicts(consumer):
                report.found(f"stage {task.name}", conflict)
        if task.remembers is not None:
            await _states(app, task, streams, report)
    found = await survey(app, streams, partial(known.look, app, streams))
    if refusal := found.refusal(app):
        report.found(f"app {app.name}", refusal)
    for one in found.beginnings:
        if one.messages and not one.doubtful:
            report.notes.append(f"stage {one.name}: {one}")
    report.notes += [str(orphan) for orphan in found.orphans]
    if len(report.problems) == before:
        report.checked.append(f"NATS: stream {app.name} and {len(tasks)} consumers")


async def _states(app: App, task: plan.Task, streams: Streams, report: Report) -> None:
    """Whether the states that a stage left can be read as their type is now."""
    looked, bad = await unreadable_states(app, task.name, streams, _STATES)
    if bad:
        assert task.remembers is not None
        report.found(
            f"stage {task.name}",
            f"{len(bad):,} of {looked:,} states cannot be read as {task.remembers.__name__} is "
            f"now, and messages of these keys would be dead letters: key {bad[0].key!r}: "
            f"{bad[0].problem}; let the field's type take what it held "
            f"(docs/changing-types.md), or begin such a key anew with mqinfer state --reset",
        )
    elif looked:
        report.checked.append(f"states of {task.name}: {looked:,} can be read")


async def check_models(
    stages: Mapping[str, Stage],
    server: InferenceServer,
    report: Report,
    aliases: Mapping[tuple[str, str], str] | None = None,
) -> None:
    """Whether the models that stages use are served, and take what the handlers send.

    Args:
        stages: to look at.
        server: where the models are.
        report: gets what is found.
        aliases: the version that each alias names, by model and alias; None where they are not
            known, and what they stand in for is looked at.
    """
    used = {name: stage.models for name, stage in stages.items()}
    named = aliases or {}
    wanted = {_asked(model, named): model for models in used.values() for model in models}
    described = dict(
        zip(wanted, await asyncio.gather(*(_describe(server, *key) for key in wanted)), strict=True)
    )
    for error in described.values():
        if isinstance(error, MqinferError) and _is_outage(error):
            users = [f"stage {name}" for name, models in used.items() if models]
            report.server("Triton", error, users)
            return
    before = len(report.problems)
    for name, models in used.items():
        for model in models:
            found = described[asked := _asked(model, named)]
            if isinstance(found, MqinferError):
                follows = asked[1] != model.version
                why = f"alias {model.alias} names version {asked[1]}: " if follows else ""
                report.found(f"stage {name}", f"{why}{found}")
            else:
                for problem in _declared(model, found):
                    report.found(f"stage {name}", problem)
        for problem in _calls(stages[name], described, named):
            report.found(f"stage {name}", problem)
    if wanted and len(report.problems) == before:
        names = sorted({name for name, _ in wanted})
        report.checked.append(f"Triton: models {', '.join(names)} and their inputs")
    if aliases is not None:
        report.checked += _unset(used.values(), aliases)


async def check_tables(
    app: App, stages: Mapping[str, Stage], database: Database, report: Report
) -> None:
    """Whether a worker could make or change the tables that rows go to."""
    tables = _tables(stages)
    try:
        await database.ping()
    except MqinferError as error:
        report.server("ClickHouse", error, [f"stage sink-{table}" for table in tables])
        return
    before = len(report.problems)
    for table, (row, _users) in tables.items():
        try:
            found = await foresee(database, row, app.name)
        except MqinferError as error:
            report.found(f"stage sink-{table}", error)
            continue
        for conflict in found.conflicts:
            report.found(f"stage sink-{table}", conflict)
        report.notes += [f"stage sink-{table}: {note}" for note in found.notes]
    for one in watched(app)[0]:
        try:
            conflicts = await foresee_counts(database, one)
        except MqinferError as error:
            conflicts = [str(error)]
        for conflict in conflicts:
            report.found(f"counts of {one.row.__mqinfer__.table}", conflict)
    if tables and len(report.problems) == before:
        report.checked.append(f"ClickHouse: tables {', '.join(tables)}")


def uses_models(stages: Mapping[str, Stage]) -> bool:
    """Whether any stage calls a model."""
    return any(stage.models for stage in stages.values())


def uses_tables(stages: Mapping[str, Stage]) -> bool:
    """Whether any stage reads or writes rows."""
    return bool(_tables(stages))


# --- tables -------------------------------------------------------------------------------------


def _tables(stages: Mapping[str, Stage]) -> dict[str, tuple[type[Row], list[str]]]:
    """Row types by table, with the stages that use them."""
    found: dict[str, tuple[type[Row], list[str]]] = {}
    for stage in stages.values():
        for kind in (stage.reads, *stage.writes):
            table = kind.__mqinfer__.table
            if issubclass(kind, Row) and table is not None:
                found.setdefault(table, (kind, []))[1].append(stage.name)
    return found


# --- models -------------------------------------------------------------------------------------


def _asked(model: Model, aliases: Mapping[tuple[str, str], str]) -> tuple[str, str | None]:
    """The model and version that a call asks for now."""
    return model.name, aliases.get((model.name, model.alias or ""), model.version)


def _unset(
    used: Iterable[Iterable[Model]], aliases: Mapping[tuple[str, str], str]
) -> Iterable[str]:
    """For each alias that is not set, what is followed instead."""
    found = {
        f"alias {model.alias} of model {model.name} is not set: "
        + (f"version {model.version} answers" if model.version else "the latest version answers")
        for models in used
        for model in models
        if model.alias is not None and (model.name, model.alias) not in aliases
    }
    return sorted(found)


async def _describe(
    server: InferenceServer, model: str, version: str | None
) -> ModelInfo | MqinferError:
    try:
        return await server.describe(model, version)
    except MqinferError as error:
        return error


def _is_outage(error: MqinferError) -> bool:
    from mqinfer.errors import ModelUnavailable

    return isinstance(error, Unavailable) and not isinstance(error, ModelUnavailable)


def _declared(model: Model, info: ModelInfo) -> Iterable[str]:
    """What `app.model(...)` says against what the server wants."""
    if info.refusal is not None:
        yield info.refusal
    try:
        padding.require(info, model.target.together.pad)
    except BadTensor as error:
        yield str(error)
    wanted = {tensor.name: tensor for tensor in info.inputs}
    for name, tensor in model.inputs.items():
        if name not in wanted:
            yield _no_such_input(model, name, info)
        elif problem := _misfit(tensor, wanted[name]):
            yield f"model {model.name}, input {name!r}: {problem}"
    if model.inputs:
        yield from _missing(model, model.inputs, info)


def _misfit(tensor: Tensor, wanted: TensorInfo) -> str | None:
    import numpy as np

    try:
        dtype = np.dtype(object if tensor.dtype in ("string", "bytes") else tensor.dtype)
    except TypeError:
        return f"dtype {tensor.dtype!r} is none that NumPy knows"
    said = f"{tensor.dtype} {tuple(tensor.shape)} is declared"
    wants = "strings" if wanted.dtype.hasobject else str(wanted.dtype.name)
    needs = f"the model wants {wants} {wanted.shape}"
    if dtype != wanted.dtype and not (wanted.dtype.hasobject and dtype.kind in "SU"):
        return f"the dtype does not fit: {said}, {needs}"
    fits = len(tensor.shape) == len(wanted.shape) and all(
        want in (-1, have) for have, want in zip(tensor.shape, wanted.shape, strict=True)
    )
    return None if fits else f"the shape does not fit: {said}, {needs}"


def _calls(
    stage: Stage,
    described: Mapping[tuple[str, str | None], ModelInfo | MqinferError],
    aliases: Mapping[tuple[str, str], str],
) -> Iterable[str]:
    """The call sites in the handler's code against what the server wants."""
    for call in model_calls(stage.handler):
        for model in call.models:
            info = described.get(_asked(model, aliases))
            if not isinstance(info, ModelInfo):
                continue
            if info.decoupled and not call.streamed:
                yield f"{take_stream(model.name)} ({call.place})"
            if call.positional:
                yield f"model {model.name} is called without input names ({call.place}): model(x=x)"
                continue
            names = {tensor.name for tensor in info.inputs}
            for name in call.keywords:
                if name not in names:
                    yield f"{_no_such_input(model, name, info)} ({call.place})"
            if not call.open and set(call.keywords) <= names:
                for problem in _missing(model, call.keywords, info):
                    yield f"{problem} ({call.place})"


def _no_such_input(model: Model, name: str, info: ModelInfo) -> str:
    names = ", ".join(repr(tensor.name) for tensor in info.inputs)
    return f"model {model.name} has no input {name!r}; it has {names}"


def _missing(model: Model, given: Iterable[str], info: ModelInfo) -> Iterable[str]:
    present = set(given)
    for tensor in info.inputs:
        if tensor.name not in present and not tensor.optional:
            yield f"model {model.name}: its input {tensor.name!r} is not given"


async def gather(report: Report, checks: Mapping[str, Check]) -> None:
    """Run the checks of several servers side by side; one that fails is a problem of its own.

    Each has a report to itself: a check that finds nothing says that its server is sound,
    whatever the others find meanwhile. They are joined in the order of `checks`.

    Args:
        report: gets what all of them find.
        checks: by the name of the server that they ask.
    """
    parts = [Report() for _ in checks]
    results = await asyncio.gather(
        *(check(part) for check, part in zip(checks.values(), parts, strict=True)),
        return_exceptions=True,
    )
    for name, part, result in zip(checks, parts, results, strict=True):
        if isinstance(result, MqinferError):
            part.server(name, result, [])
        elif isinstance(result, BaseException):
            raise result
        report.join(part)
