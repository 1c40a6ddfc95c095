"""Deploying: what `mqinfer deploy apply` does, in an order in which nothing is lost.

Streams and consumers come first: a message that is published before its consumer is made may be one
that it does not begin with, and KEDA scales to the maximum where there is none. Then the record, by
compare-and-set, then aliases and generations of indexes, then processes.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mqinfer.errors import ConfigurationError, MqinferError

if TYPE_CHECKING:
    from mqinfer.adapters.jetstream import JetStream
    from mqinfer.app import App
    from mqinfer.cli.looks import Looks
    from mqinfer.deploy.processes import Plan
    from mqinfer.settings import Settings
    from mqinfer.supervise.group import Group

_LOCK = "lock"


async def carry_out(
    app: App,
    planned: Plan,
    target: str,
    settings: Settings,
    revision: int,
    write: Callable[[], object],
    *,
    prune: bool,
) -> None:
    """All but the processes.

    Args:
        app: that is deployed.
        planned: what is wanted.
        target: where to.
        settings: of the connection to NATS.
        revision: of the record that the differences were made by.
        write: writes the files of the target.
        prune: delete consumers that no stage has.

    Raises:
        ConflictError: somebody else has deployed meanwhile, or a stage's beginning is unclear.
        Unavailable: NATS does not answer.
    """
    from mqinfer import wiring
    from mqinfer.deploy import applied

    async with wiring.jetstream(app, settings, "deploy") as broker:
        record = broker.bucket(applied.bucket_name(app), replicas=app.replicas)
        now = applied.Applied(
            target=target,
            deployment=planned.deployment,
            declaration=planned.declared,
            at=datetime.datetime.now(datetime.UTC),
        )
        await _make(app, broker, prune=prune)
        aliases = wiring.aliases(app, broker)
        await applied.save(record, now, revision)
        for name, version in planned.deployment.models.items():
            model, _, alias = name.rpartition("@")
            await aliases.set(model, alias, version)
        await _index(app, broker, planned)
        write()


async def _index(app: App, broker: JetStream, planned: Plan) -> None:
    """Build generations of indexes, let searches go to those that are read, and set weights."""
    from mqinfer import wiring
    from mqinfer.deploy import live, shards

    if not app.indexes:
        return
    generations, held = wiring.generations(app, broker), planned.deployment.indexes
    facts = planned.declared.indexes
    fields = {name: shards.wanted(facts[name], one) for name, one in held.items()}
    await generations.ensure(fields)
    there = await live.look_at_indexes(app, generations, wiring.core(broker))
    for name, one in held.items():
        index = app.indexes[name]
        for model, now in there[name].models.items():
            step = shards.step(now, fields[name])
            if step.kind == "build":
                await generations.build(index, model, {**shards.pinned(now), **fields[name]})
            elif step.kind == "flip":
                await generations.flip(index, model, step.number)
        if one.weights:
            await generations.weigh(index, one.weights)


async def _make(app: App, broker: JetStream, *, prune: bool) -> None:
    from mqinfer import plan, wiring
    from mqinfer.worker.live import LiveWork
    from mqinfer.worker.making import make_streams

    timers = wiring.timetable(app, broker) if plan.uses_timers(app) else None
    work = LiveWork(app, broker, timers=timers)
    await make_streams(app, broker, timers)
    await work.survey()
    for task in work.tasks:
        await work.ensure(task)
    if prune:
        await _prune(app, broker)


async def _prune(app: App, broker: JetStream) -> None:
    """Delete consumers of stages that are no more; those of strangers stay."""
    from functools import partial

    from mqinfer import wiring
    from mqinfer.deploy.data import stage_of
    from mqinfer.worker import known
    from mqinfer.worker.survey import survey

    streams = wiring.scanner(broker)
    had = await known.look(app, streams)
    for orphan in (await survey(app, streams, partial(known.look, app, streams))).orphans:
        if had is None or stage_of(orphan.name) not in had.stages:
            continue
        for info in await broker.consumers(orphan.stream):
            name, partition = info["name"], rf"{re.escape(orphan.name)}(-p\d+)?"
            if re.fullmatch(partition, name):
                await broker.delete_consumer(orphan.stream, name)


def command(target: str, folder: Path, planned: Plan) -> list[str]:
    """What brings containers, or a cluster, to the files in a folder."""
    from mqinfer.deploy.targets import k8s

    if target == "compose":
        file = str(folder / "compose.yaml")
        return ["docker", "compose", "-f", file, "up", "--detach", "--remove-orphans"]
    chosen = f"--selector={k8s.MANAGED}=mqinfer,{k8s.INSTANCE}={planned.app}"
    kinds = [f"--prune-allowlist={kind}" for kind in k8s.KINDS]
    return ["kubectl", "apply", "-k", str(folder), "--prune", chosen, *kinds]


def run_other(command: Sequence[str], name: str) -> None:
    """Run it.

    Args:
        command: of Compose or of Kubernetes.
        name: of the app, as on the command line.

    Raises:
        ConfigurationError: the program is not installed.
        MqinferError: it failed; what is on NATS is as wanted, so that it may be done again.
    """
    if shutil.which(command[0]) is None:
        raise ConfigurationError(
            f"{command[0]} is not installed here. Streams, consumers and aliases of {name} are as "
            f"wanted; where it is: {' '.join(command)}"
        )
    if (code := subprocess.run(command, check=False).returncode) != 0:
        raise MqinferError(f"{' '.join(command)} failed with exit code {code}: apply it again")


# --- local --------------------------------------------------------------------------------------


def run_local(app: App, settings: Settings, folder: Path) -> int:
    """The processes, until told to stop, unless somebody runs them already; the exit code.

    Args:
        app: that is deployed.
        settings: of the connection to NATS.
        folder: that has the file of groups.
    """
    from mqinfer.cli import options
    from mqinfer.cli.looks import Looks
    from mqinfer.cli.processes import Supervisor

    with _alone(folder / _LOCK) as running:
        if running:
            print(f"process {running} supervises app {app.name} here, and takes this up")
            return 0
        options.configure_logs(settings)
        file = _Groups(folder)
        looks = Looks(app, settings, file.groups)
        supervisor = Supervisor(
            file.groups, grace=settings.grace, looks=looks, changed=lambda: file.changed(looks)
        )
        return supervisor.run()


class _Groups:
    """The groups in the file that was rendered, as it is now."""

    def __init__(self, folder: Path):
        from mqinfer.deploy.targets import local

        self._file = folder / local.FILE
        self._text = self._file.read_bytes()
        self.groups: list[Group] = local.read(self._text)

    def changed(self, looks: Looks) -> list[Group] | None:
        """The groups, if they are others than before."""
        from mqinfer.deploy.targets import local

        with contextlib.suppress(OSError, msgspec.MsgspecError):
            text = self._file.read_bytes()
            if text != self._text:
                self._text, self.groups = text, local.read(text)
                looks.watch(self.groups)
                return self.groups
        return None


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[int | None]:
    """Hold the lock of a folder; gives the process that holds it already, or None."""
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            yield int(file.read() or 0)
            return
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield None
