"""`mqinfer deploy`: one file says what runs: render it, compare it with what runs, apply it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mqinfer import signals
from mqinfer.cli import interrupt, options
from mqinfer.cli.errors import Failed
from mqinfer.cli.load import load_app
from mqinfer.cli.output import print_json
from mqinfer.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mqinfer.app import App
    from mqinfer.deploy.change import Change
    from mqinfer.deploy.processes import Plan
    from mqinfer.settings import Settings

File = Annotated[Path, typer.Argument(metavar="FILE", help="deploy.toml.")]
TargetName = Annotated[
    str, typer.Option("--target", "-t", metavar="TARGET", help="local, compose or k8s.")
]
Out = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Else .mqinfer/deploy/<app>/<target>.")
]

group = typer.Typer(
    help="Say in one file what runs: render it, compare it with what runs, apply it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@dataclass(frozen=True)
class _Wanted:
    """What the command line names, read and found sound."""

    app: App
    plan: Plan
    target: str
    settings: Settings
    folder: Path

    def files(self) -> dict[str, str]:
        """What is rendered, by name."""
        from mqinfer.deploy.targets import compose, k8s, local

        if self.target == "compose":
            return compose.render(self.plan, self.app)
        if self.target == "k8s":
            return k8s.render(self.plan, self.app)
        return local.render(self.plan, self.app)

    def write(self) -> list[Path]:
        """Write what is rendered; a file is whole or not there."""
        written = []
        for name, text in self.files().items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f".{path.name}.new")
            new.write_text(text)
            written.append(new.replace(path))
        return written


def _wanted(app: str, file: Path, target: str, out: Path | None, nats_url: str | None) -> _Wanted:
    from mqinfer.deploy.declaration import declaration
    from mqinfer.deploy.processes import Plan
    from mqinfer.deploy.reading import TARGETS, read

    if target not in TARGETS:
        raise ConfigurationError(f"--target is {', '.join(TARGETS)}, not {target!r}")
    loaded = load_app(app)
    planned = Plan(app, read(file, loaded, target), declaration(loaded))
    # The settings of whoever deploys: a container's address of NATS need not be one from here.
    own = planned.deployment.settings if target == "local" else {}
    settings = options.load_settings(**own | ({"nats_url": nats_url} if nats_url else {}))
    options.quiet_logging(settings)
    folder = out or Path(".mqinfer") / "deploy" / loaded.name / target
    return _Wanted(loaded, planned, target, settings, folder)


def render(app: options.AppName, file: File, target: TargetName, out: Out = None) -> None:
    r"""Write the files of a target: asks no server, changes nothing else.

    local: processes.json and systemd units; compose: compose.yaml, observe.yaml for Prometheus and
    Grafana, and a Dockerfile; k8s: objects for `kubectl apply -k`, and values for NATS's chart.

    \b
      mqinfer deploy render plants:app deploy.toml --target k8s --out k8s
    """
    for path in _wanted(app, file, target, out, None).write():
        print(path)


def diff(
    app: options.AppName,
    file: File,
    target: TargetName,
    nats_url: options.NatsUrl = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Tell what applying would do, each difference by its consequence. Changes nothing.

    Compared are the file and the code with what was applied last, and with what there is on NATS:
    streams, consumers, aliases, workers, indexes; with tables of ClickHouse and versions in Triton
    as far as these answer. Exit codes as of `kubectl diff`: 0 no difference, 1 some, 2 an error.

    \b
      mqinfer deploy diff plants:app deploy.toml --target local
    """
    from mqinfer.errors import MqinferError

    try:
        found, _ = interrupt.run(_compare(_wanted(app, file, target, None, nats_url)))
    except ConfigurationError:
        raise
    except MqinferError as error:  # 1 would say that there are differences
        raise ConfigurationError(str(error)) from error
    _tell(found, as_json)
    if found:
        raise Failed


def apply(
    app: options.AppName,
    file: File,
    target: TargetName,
    out: Out = None,
    drop: Annotated[bool, typer.Option("--drop", help="Also what drops data.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete consumers of stages that are no more.")
    ] = False,
    nats_url: options.NatsUrl = None,
) -> None:
    r"""Make what runs be what the file says: streams and consumers, aliases, then processes.

    What drops data is not applied without --drop, and what cannot be is refused before anything is
    changed. local: the processes run under this command until SIGTERM or Ctrl-C; where it runs in
    this folder already, that one takes the changes up. compose and k8s: `docker compose up` and
    `kubectl apply` do the rest.

    \b
      mqinfer deploy apply plants:app deploy.toml --target local
    """
    from mqinfer.cli import deploying

    wanted = _wanted(app, file, target, out, nats_url)

    async def change() -> None:
        found, revision = await _compare(wanted)
        _tell(found, as_json=False)
        _permit(found, drop=drop)
        await deploying.carry_out(
            wanted.app, wanted.plan, target, wanted.settings, revision, wanted.write, prune=prune
        )

    interrupt.run(change())
    if target == "local":
        signals.hold()
        raise typer.Exit(deploying.run_local(wanted.app, wanted.settings, wanted.folder))
    deploying.run_other(deploying.command(target, wanted.folder, wanted.plan), app)


async def _compare(wanted: _Wanted) -> tuple[list[Change], int]:
    from mqinfer import wiring
    from mqinfer.cli.deployservers import servers
    from mqinfer.deploy import applied, live
    from mqinfer.deploy.changes import changes

    async with wiring.jetstream(wanted.app, wanted.settings, "deploy") as broker:
        record = broker.bucket(applied.bucket_name(wanted.app), replicas=wanted.app.replicas)
        before, revision = await applied.load(record)
        aliases = await wiring.aliases(wanted.app, broker).all()
        indexes = await live.look_at_indexes(
            wanted.app, wiring.generations(wanted.app, broker), wiring.core(broker)
        )
        models = bool(wanted.plan.deployment.models)
        others = await servers(wanted.app, wanted.settings, wanted.target, models=models)
        for line in others.silent:
            print(line, file=sys.stderr)
        scanner = wiring.scanner(broker)
        now = await live.look(wanted.app, scanner, aliases, indexes, others)
    if before is not None and before.target != wanted.target:
        raise ConfigurationError(
            f"app {wanted.app.name} was applied to {before.target}: stop it there, then "
            f"`mqinfer deploy forget {wanted.plan.name}`"
        )
    return changes(before, wanted.plan.deployment, wanted.plan.declared, now), revision


def forget(app: options.AppName, nats_url: options.NatsUrl = None) -> None:
    r"""Forget what was applied last: nothing is stopped, and the next diff begins anew.

    \b
      mqinfer deploy forget plants:app
    """
    from mqinfer import wiring
    from mqinfer.bucket import change
    from mqinfer.deploy import applied

    settings = options.load_settings(nats_url=nats_url)
    options.quiet_logging(settings)
    loaded = load_app(app)

    async def drop() -> None:
        async with wiring.jetstream(loaded, settings, "deploy") as broker:
            bucket = broker.bucket(applied.bucket_name(loaded), replicas=loaded.replicas)
            await change(bucket, applied.KEY, lambda _: None, what="what was applied")

    interrupt.run(drop())
    print(f"what was applied of app {loaded.name} is forgotten")


def _tell(found: Sequence[Change], as_json: bool) -> None:
    if as_json:
        facts: list[dict[str, Any]] = [
            {"kind": one.kind, "where": one.where, "what": one.what, "then": one.consequence}
            for one in found
        ]
        print_json({"changes": facts})
        return
    for one in found:
        print(f"{one.kind:8} {one}")
    if not found:
        print("no difference")


def _permit(found: Sequence[Change], *, drop: bool) -> None:
    """Refuse what cannot be, and what drops data unless that was asked for.

    Raises:
        ConfigurationError: naming the differences.
    """
    from mqinfer.deploy.change import Kind

    refused = [one.where for one in found if one.kind is Kind.REFUSED]
    if refused:
        raise ConfigurationError(f"nothing was applied: {', '.join(refused)} (see above)")
    drops = [one.where for one in found if one.kind is Kind.DROP]
    if drops and not drop:
        raise ConfigurationError(
            f"nothing was applied: {', '.join(drops)} drops data (see above); --drop applies it"
        )


COMMANDS = {"render": render, "diff": diff, "apply": apply, "forget": forget}
