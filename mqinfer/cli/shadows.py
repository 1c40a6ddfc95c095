"""`mqinfer models --shadow, --canary`: versions that answer beside the live ones, or a share."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mqinfer.cli.output import print_table
from mqinfer.cli.served import asked_triton
from mqinfer.errors import ConfigurationError, MqinferError, Unavailable
from mqinfer.times import parse_duration

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.inference.aliases import Alias
    from mqinfer.ports import ModelVersion
    from mqinfer.replay.run import Run
    from mqinfer.replay.runs import Runs
    from mqinfer.settings import Settings
    from mqinfer.shadow.shadows import Shadow
    from mqinfer.shadow.told import Told

SHARE = {"shadow": 0.1, "canary": 0.05}  # where none is said


@dataclass(frozen=True)
class Asked:
    """What is to be done of shadows and canaries.

    Attributes:
        shadow: MODEL=VERSION.
        no_shadow: MODEL.
        canary: MODEL[@ALIAS]=VERSION.
        no_canary: MODEL[@ALIAS].
        promote: the same.
        share: of messages.
        stage: whose messages, of a shadow.
        run: its name.
        late: how old a message may be that it answers.
        force: without asking Triton for the version.
    """

    shadow: str | None = None
    no_shadow: str | None = None
    canary: str | None = None
    no_canary: str | None = None
    promote: str | None = None
    share: float | None = None
    stage: str | None = None
    run: str | None = None
    late: str | None = None
    force: bool = False

    @property
    def wanted(self) -> str | None:
        """The one thing that is to be done, or None.

        Raises:
            ConfigurationError: several are.
        """
        names = ("shadow", "no_shadow", "canary", "no_canary", "promote")
        found = [name for name in names if getattr(self, name) is not None]
        if len(found) > 1:
            told = " and ".join(f"--{name.replace('_', '-')}" for name in found)
            raise ConfigurationError(f"one at a time: {told}")
        if not found and (self.share, self.stage, self.run, self.late) != (None,) * 4:
            raise ConfigurationError("--share, --stage, --run and --late go with --shadow")
        return found[0] if found else None

    def pair(self, option: str) -> tuple[str, str]:
        """Name and version of `--shadow` or `--canary`.

        Raises:
            ConfigurationError: it is none.
        """
        given = getattr(self, option)
        name, _, version = given.rpartition("=")
        if not (name and version):
            raise ConfigurationError(
                f"--{option} takes MODEL=VERSION, such as grade_rust=2, not {given!r}"
            )
        return name, version


async def act(app: App, settings: Settings, asked: Asked) -> dict[str, Any]:
    """Do what is asked; gives the facts, and a line that says them as `said`."""
    from mqinfer import wiring
    from mqinfer.replay.run import LATE

    async with wiring.jetstream(app, settings, "models") as broker:
        shadows, canaries = wiring.shadows(app, broker), wiring.canaries(app, broker)
        wanted = asked.wanted
        share = asked.share if asked.share is not None else SHARE.get(wanted or "", 0.0)
        if wanted == "shadow":
            model, version = asked.pair("shadow")
            await _require_served(settings, model, version, force=asked.force)
            late = LATE if asked.late is None else parse_duration(asked.late)
            run = await shadows.begin(
                model, version, share, stage=asked.stage, name=asked.run, late=late
            )
            return _of_run(run, f"{model} {version} answers {share:.3g} of {run.stage} beside")
        if wanted == "no_shadow":
            assert asked.no_shadow is not None
            run = await shadows.end(asked.no_shadow)
            return _of_run(run, f"{asked.no_shadow} has no shadow; when what is left is answered")
        if wanted == "canary":
            name, version = asked.pair("canary")
            model, alias = canaries.alias_of(name)
            await _require_served(settings, model, version, force=asked.force)
            found = await canaries.let_in(name, version, share)
            note = await _reference(app, settings, shadows.runs, found)
            return _of_alias(found, note)
        if wanted == "no_canary":
            assert asked.no_canary is not None
            model, alias = canaries.alias_of(asked.no_canary)
            if not await canaries.take_back(model, alias):
                raise ConfigurationError(f"{model}@{alias} has no canary")
            back = await canaries.aliases.find(model, alias)
            assert back is not None
            return _of_alias(back)
        assert asked.promote is not None
        return _of_alias(await canaries.promote(asked.promote))


def _of_run(run: Run, said: str) -> dict[str, Any]:
    return {
        "run": run.name,
        "stage": run.stage,
        "share": run.beside,
        "models": run.models,
        "goes_on": run.open,
        "said": f"{said}: run {run.name} (mqinfer runs compare APP {run.name})",
    }


def _of_alias(alias: Alias, note: str = "") -> dict[str, Any]:
    name = f"{alias.model}@{alias.alias}"
    canary = alias.canary
    said = f"{name}: {alias.version}"
    if canary is not None:
        said += f", and {canary.version} for {canary.share:.3g} of the traffic"
    return {
        "model": alias.model,
        "alias": alias.alias,
        "version": alias.version,
        "canary": canary and {"version": canary.version, "share": canary.share},
        "said": "\n".join(filter(None, (said, note))),
    }


async def _require_served(settings: Settings, model: str, version: str, *, force: bool) -> None:
    from mqinfer.operate.models import require_served

    if force:
        return
    try:
        served: list[ModelVersion] = await asked_triton(settings)
    except Unavailable as error:
        raise Unavailable(f"{error} (--force does it without asking Triton)") from None
    require_served(model, version, served, "does it all the same")


async def _reference(app: App, settings: Settings, runs: Runs, alias: Alias) -> str:
    """Have what the version's shadow said be its reference; what its alarm rests on, in words."""
    from mqinfer import wiring
    from mqinfer.monitor.looking import Monitor
    from mqinfer.monitor.watched import watched
    from mqinfer.replay.adopting import adopt_moved

    canary = alias.canary
    assert canary is not None
    alone = "it goes back by itself only where its version fails or does not answer"
    if not watched(app)[0]:
        return f"note: no row has a Label() or Confidence(): {alone} (docs/monitor.md)"
    async with AsyncExitStack() as stack:
        db = wiring.clickhouse(settings)
        stack.push_async_callback(db.close)
        try:
            await adopt_moved(app, runs, db, alias.model, canary.version)
            monitor = Monitor(app, db)
            await monitor.ensure()
            held = await monitor.references_of(alias.model, canary.version, alias.version)
        except MqinferError as error:
            return f"note: it is not known what its alarm rests on: {error}"
    if not held:
        return f"note: neither version has a reference: {alone} (mqinfer monitor accept APP)"
    told = "; ".join(f"{series}: {one.source}" for series, one in held.items())
    return f"it goes back by itself when it fails, or leaves its reference ({told})"


# --- the list -----------------------------------------------------------------------------------


async def look(app: App, settings: Settings, missing: dict[str, str]) -> list[Told]:
    """How the app's shadows stand; what cannot be asked is told in `missing`, by server."""
    from mqinfer import wiring
    from mqinfer.shadow.told import plain, told

    try:
        async with wiring.jetstream(app, settings, "models") as broker:
            names = sorted({model.name for model in app.models.values()})
            found = await wiring.shadows(app, broker).standing(names)
    except MqinferError as error:
        missing["NATS"] = " ".join(str(error).split())
        return []
    if not found:
        return []

    async def each(shadow: Shadow, run: Run) -> Told:
        try:
            return await told(app, shadow, run, db)
        except MqinferError as error:
            missing["ClickHouse"] = " ".join(str(error).split())
            return plain(shadow, run)

    async with AsyncExitStack() as stack:
        db = wiring.clickhouse(settings)
        stack.push_async_callback(db.close)
        return [await each(shadow, run) for shadow, run in found]


def print_shadows(found: list[Told]) -> None:
    """A line each."""
    if not found:
        return
    print()
    lines = [
        (
            one.model,
            one.version,
            f"{one.share:.3g} of {one.stage}" + ("" if one.goes_on else " (ends)"),
            one.run,
            "-" if one.answered is None else f"{one.answered:,}",
            "-" if one.skipped is None else f"{one.skipped:,}",
            one.same,
        )
        for one in found
    ]
    columns = ("shadow of", "version", "answers", "run", "answered", "passed over", "the same")
    print_table(columns, lines, right=("version", "answered", "passed over"))
    for one in found:
        for reason, count in one.reasons:
            print(f"note: {one.run} passed over {count:,}: {reason}")


def print_canaries(aliases: list[Alias]) -> None:
    """What has a share, and what went back by itself."""
    for one in aliases:
        name = f"{one.model}@{one.alias}"
        if one.canary is not None:
            canary = one.canary
            print(
                f"canary: version {canary.version} has {canary.share:.3g} of {name} since "
                f"{canary.began:%Y-%m-%d %H:%M:%S} UTC"
            )
        elif one.back:
            print(f"note: the last canary of {name} went back by itself: {one.back}")
