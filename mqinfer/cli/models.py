"""`mqinfer models`: versions that are used, served and stored; what an alias names; `pack`."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import typer
from typer.core import TyperGroup

from mqinfer.cli import interrupt, options, tracking
from mqinfer.cli.errors import Failed
from mqinfer.cli.load import load_app
from mqinfer.cli.output import print_json, print_table
from mqinfer.cli.pack import pack
from mqinfer.cli.served import asked_triton
from mqinfer.cli.shadows import Asked, act, look, print_canaries, print_shadows
from mqinfer.errors import ConfigurationError, MqinferError, Unavailable

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.inference.aliases import Alias
    from mqinfer.operate.models import Rows, Use
    from mqinfer.ports import ModelVersion
    from mqinfer.settings import Settings
    from mqinfer.shadow.told import Told

T = TypeVar("T")


class _Models(TyperGroup):
    """`models APP` is `models list APP`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put in the command that was left out."""
        if args and args[0] not in self.commands and not {"-h", "--help"} & {*args[:1]}:
            args = ["list", *args]
        return super().parse_args(ctx, args)


group = typer.Typer(
    cls=_Models,
    help="List models and set aliases (`models APP`), or pack a model of your own.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_FORCED = "sets it all the same: stages then wait for it"
_SET = "MODEL@ALIAS=VERSION, such as grade_rust@live=2"


def models(
    app: options.AppName,
    *,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="MODEL@ALIAS=VERSION", help="Set an alias; repeatable, with --unset."
        ),
    ] = None,
    unset: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL@ALIAS", help="Remove an alias: the declared version answers."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Set versions that Triton does not serve (yet).")
    ] = False,
    shadow: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL=VERSION", help="Let a version answer a --share beside, as a run."
        ),
    ] = None,
    no_shadow: Annotated[
        str | None, typer.Option(metavar="MODEL", help="End its shadow; the run stays.")
    ] = None,
    canary: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL=VERSION", help="Give a version a --share of what asks by the alias."
        ),
    ] = None,
    no_canary: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Take its canary back.")
    ] = None,
    promote: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Let the alias name its canary.")
    ] = None,
    share: Annotated[
        float | None,
        typer.Option(metavar="F", help="Of the messages; 0.1 of a shadow, 0.05 of a canary."),
    ] = None,
    stage: Annotated[
        str | None, typer.Option("--stage", "-s", metavar="NAME", help="That a shadow is of.")
    ] = None,
    run: Annotated[str | None, typer.Option(metavar="NAME", help="Of a shadow's run.")] = None,
    late: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="A shadow passes over what is older; 30s unless said."),
    ] = None,
    servers: options.Servers,
    as_json: options.AsJson = False,
) -> None:
    r"""List which model versions stages follow, what Triton serves, and whose rows are stored.

    With --set or --unset, change what aliases name instead: workers notice within two seconds. A
    server that does not answer leaves its part of the list unknown, and the exit code is 1.

    \b
      mqinfer models plants:app
      mqinfer models plants:app --set grade_rust@live=2
      mqinfer models plants:app --unset grade_rust@live
      mqinfer models plants:app --shadow grade_rust=2 --share 0.1
      mqinfer models plants:app --canary grade_rust=2 --share 0.05
    """
    settings = options.load_settings(**dataclasses.asdict(servers))
    options.quiet_logging(settings)
    loaded = load_app(app)
    wanted = _wanted(set_ or (), unset or ())
    asked = Asked(shadow, no_shadow, canary, no_canary, promote, share, stage, run, late, force)
    if asked.wanted is not None:
        if wanted:
            raise ConfigurationError(f"--{asked.wanted.replace('_', '-')} goes without --set")
        facts = interrupt.run(act(loaded, settings, asked))
        said = facts.pop("said")
        if as_json:
            print_json({"app": loaded.name} | facts)
        else:
            print(said)
        if asked.wanted in ("no_shadow", "canary", "promote"):
            interrupt.run(tracking.shadow(loaded, settings, facts))
        return
    if wanted:
        changes = interrupt.run(_change(loaded, settings, wanted, force))
        if as_json:
            print_json({"app": loaded.name, "changes": changes})
        else:
            for change in changes:
                print(_said(change))
        return
    found = interrupt.run(_gather(loaded, settings))
    if as_json:
        print_json(found.as_dict())
    else:
        _print(found)
    if found.missing:
        raise Failed


# --- aliases ------------------------------------------------------------------------------------


def _wanted(sets: Sequence[str], unsets: Sequence[str]) -> dict[tuple[str, str], str | None]:
    """The version that each alias is to name; None is none."""
    pairs: list[tuple[str, str | None]] = [(name, None) for name in unsets]
    for given in sets:
        left, _, right = given.rpartition("=")
        if not (left and right):
            raise ConfigurationError(f"--set takes {_SET}, not {given!r}")
        pairs.append((left, right))
    wanted: dict[tuple[str, str], str | None] = {}
    for name, version in pairs:
        model, _, alias = name.rpartition("@")
        if not (model and alias):
            if version is None:
                raise ConfigurationError(f"--unset takes MODEL@ALIAS, not {name!r}")
            raise ConfigurationError(f"--set takes {_SET}, not {f'{name}={version}'!r}")
        if wanted.setdefault((model, alias), version) != version:
            raise ConfigurationError(f"{name} is given twice, with different versions")
    return wanted


async def _change(
    app: App, settings: Settings, wanted: dict[tuple[str, str], str | None], force: bool
) -> list[dict[str, Any]]:
    """Check all that is wanted, then do it."""
    from mqinfer import wiring
    from mqinfer.operate.models import require_served
    from mqinfer.replay.adopting import adopt_moved

    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(wiring.jetstream(app, settings, "models"))
        aliases = wiring.aliases(app, broker)
        for model, alias in (key for key, version in wanted.items() if version is not None):
            aliases.require(model, alias)
        if not force and any(wanted.values()):
            served = await _served_now(settings)
            for (model, _), version in wanted.items():
                if version is not None:
                    require_served(model, version, served, _FORCED)
        changes = []
        for (model, alias), version in wanted.items():
            if version is None:
                before = await aliases.unset(model, alias)
            else:
                before = await aliases.set(model, alias, version)
            was = before.version if before else None
            changes.append({"model": model, "alias": alias, "before": was, "version": version})
        database = wiring.clickhouse(settings) if app.rows else None
        if database is not None:
            stack.push_async_callback(database.close)
        for (model, _), version in wanted.items():
            if version is not None:
                await adopt_moved(app, wiring.runs(app, broker), database, model, version)
    return changes


async def _served_now(settings: Settings) -> list[ModelVersion]:
    try:
        return await asked_triton(settings)
    except Unavailable as error:
        raise Unavailable(f"{error} (--force sets the alias without asking Triton)") from None


def _said(change: dict[str, Any]) -> str:
    name = f"{change['model']}@{change['alias']}"
    before, version = (change[part] or "not set" for part in ("before", "version"))
    return f"{name}: {before} -> {version}" if before != version else f"{name}: {version} already"


# --- the list -----------------------------------------------------------------------------------


@dataclasses.dataclass
class _Found:
    """What was found out.

    Attributes:
        app: its name.
        uses: how the app asks for models.
        loose: aliases that are set and that nothing follows.
        served: what Triton has of the app's models, by model; None if it does not say.
        rows: counts of the tables; None if ClickHouse does not say.
        missing: what is not known, by server, and why.
        shadows: that go on, or work off what is left.
        followed: aliases that are set and followed, with their canaries.
    """

    app: str
    uses: list[Use]
    loose: list[Alias]
    served: dict[str, list[ModelVersion]] | None
    rows: list[Rows] | None
    missing: dict[str, str]
    shadows: list[Told]
    followed: list[Alias]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: a list of models, and of counts of rows."""
        names = sorted({use.model for use in self.uses})
        return {
            "app": self.app,
            "models": [
                {
                    "model": name,
                    "uses": [use.as_dict() for use in self.uses if use.model == name],
                    "served": None if self.served is None else self._served(name),
                }
                for name in names
            ],
            "rows": None if self.rows is None else [dataclasses.asdict(one) for one in self.rows],
            "not_followed": [f"{one.model}@{one.alias}={one.version}" for one in self.loose],
            "shadows": [one.as_dict() for one in self.shadows],
            "canaries": [
                {"model": one.model, "alias": one.alias, "back": one.back}
                | ({} if one.canary is None else msgspec.to_builtins(one.canary))
                for one in self.followed
                if one.canary is not None or one.back
            ],
            "missing": self.missing,
        }

    def _served(self, model: str) -> list[dict[str, Any]]:
        assert self.served is not None
        return [
            {"version": one.version, "ready": one.ready, "reason": one.reason}
            for one in self.served.get(model, ())
        ]


async def _gather(app: App, settings: Settings) -> _Found:
    from mqinfer import wiring
    from mqinfer.inference.aliases import followed
    from mqinfer.operate import models as facts

    missing: dict[str, str] = {}

    async def ask(server: str, question: Callable[[], Awaitable[T]]) -> T | None:
        try:
            return await question()
        except ConfigurationError:
            raise
        except MqinferError as error:
            missing[server] = " ".join(str(error).split())
            return None

    async def aliases() -> dict[tuple[str, str], Alias]:
        async with wiring.jetstream(app, settings, "models") as broker:
            return await wiring.aliases(app, broker).all()

    async def rows() -> list[Rows]:
        async with AsyncExitStack() as stack:
            db = wiring.clickhouse(settings)
            stack.push_async_callback(db.close)
            return await facts.rows(app, db)

    named = await ask("NATS", aliases)
    uses = facts.uses(app, named)
    served = await ask("Triton", lambda: asked_triton(settings)) if app.models else []
    pairs = set(followed(app))
    return _Found(
        app=app.name,
        uses=uses,
        loose=[alias for key, alias in (named or {}).items() if key not in pairs],
        served=None
        if served is None
        else {use.model: [one for one in served if one.model == use.model] for use in uses},
        rows=await ask("ClickHouse", rows) if app.rows else [],
        missing=missing,
        shadows=await look(app, settings, missing) if app.models and app.rows else [],
        followed=[alias for key, alias in (named or {}).items() if key in pairs],
    )


def _print(found: _Found) -> None:
    if found.uses:
        lines = [
            (use.model, ", ".join(use.stages) or "-", use.follows, _versions(found, use))
            for use in found.uses
        ]
        print_table(("model", "stages", "follows", "Triton serves"), lines)
    else:
        print(f"app {found.app} uses no models")
    for alias in found.loose:
        print(f"note: nothing follows {alias.model}@{alias.alias}, which names {alias.version}")
    if found.rows:
        counts = [
            (
                one.model,
                one.version,
                one.table,
                one.run or "live",
                f"{one.rows:,}",
                f"{one.shown:,}",
            )
            for one in found.rows
        ]
        print()
        columns = ("rows by model", "version", "table", "run", "rows", "shown")
        print_table(columns, counts, right=("version", "rows", "shown"))
    elif found.rows is None:
        print("rows by model: not known")
    print_shadows(found.shadows)
    print_canaries(found.followed)
    for server, reason in found.missing.items():
        print(f"not known of {server}: {reason}")


def _versions(found: _Found, use: Use) -> str:
    if found.served is None:
        return "not known"
    served = found.served.get(use.model, [])
    ready = ", ".join(one.version for one in served if one.ready)
    others = [
        f"{f'{one.version}: ' if one.version else ''}{one.reason}"
        for one in served
        if not one.ready
    ]
    return "; ".join(part for part in (ready, *others) if part) or "it is not in the repository"


COMMANDS = {"list": models, "pack": pack}
