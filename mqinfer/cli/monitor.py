"""`mqinfer monitor`: whether models are still what they were; and what a person says to alarms."""

from __future__ import annotations

import asyncio
import csv
import datetime
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from mqinfer.cli import interrupt, options
from mqinfer.cli.errors import Failed
from mqinfer.cli.load import load_app
from mqinfer.cli.output import print_json, print_table
from mqinfer.errors import ConfigurationError, MqinferError
from mqinfer.times import parse_duration

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.monitor.episode import Episode
    from mqinfer.monitor.looking import Monitor, Standing
    from mqinfer.settings import Settings

T = TypeVar("T")

_COLUMNS = ("series", "rows", "verdict", "PSI", "evidence", "reference")
EpisodeId = Annotated[
    str, typer.Argument(metavar="EPISODE", help="As `mqinfer monitor APP` shows.")
]
Note = Annotated[str, typer.Option(metavar="TEXT", help="Why, for whoever looks later.")]
Target = Annotated[
    float | None,
    typer.Option(
        metavar="ACCURACY", min=0, max=1, help="That is wanted, such as 0.9: see `truth`."
    ),
]
Window = Annotated[str, typer.Option(metavar="TIME", help="The last so much, such as 24h.")]


class _Monitor(TyperGroup):
    """`monitor APP` is `monitor show APP`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put in the command that was left out."""
        if args and args[0] not in self.commands and not {"-h", "--help"} & {*args[:1]}:
            args = ["show", *args]
        return super().parse_args(ctx, args)


group = typer.Typer(
    cls=_Monitor,
    help="Tell whether models are what they were (`monitor APP`), or answer an alarm.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def show(
    app: options.AppName,
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Until Ctrl-C.")] = False,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="Between two looks of --watch.")
    ] = 60.0,
    window: Window = "24h",
    target: Target = None,
    http: Annotated[
        int | None,
        typer.Option("--http", metavar="PORT", help="With --watch: gauges at /metrics."),
    ] = None,
    clickhouse_url: options.ClickHouseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Tell of every watched column whether it is what it was, and what to do.

    Exit code 1 while an alarm stands: one that is open or acknowledged, and not muted. Asks
    ClickHouse alone. Nothing is compared before a reference is accepted, or a run promoted.

    \b
      mqinfer monitor plants:app
      mqinfer monitor plants:app --json
      mqinfer monitor plants:app --watch --http 9405
    """
    settings = options.load_settings(clickhouse_url=clickhouse_url)
    options.quiet_logging(settings)
    loaded = load_app(app)
    seconds = parse_duration(window)
    if watch:
        interrupt.run(_watch(loaded, settings, (seconds, target), interval, http, as_json))
        return

    async def once(monitor: Monitor) -> tuple[list[Standing], list[Episode]]:
        return await monitor.look(now), await monitor.history()

    now = time.time()
    found, history = interrupt.run(_asked(loaded, settings, once, seconds, target))
    _print(loaded.name, found, history, now, as_json)
    if any(one.alarms(now) for one in found):
        raise Failed


def accept(
    app: options.AppName,
    series: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SERIES]...", help="Names or parts of them; none: all."),
    ] = None,
    window: Window = "24h",
    clickhouse_url: options.ClickHouseUrl = None,
) -> None:
    r"""Make the last hours the reference that what comes is held against; ends their alarms.

    Says how often the reference would have alarmed in its own time: every second hour is held
    against the others. Take a window with all that is ordinary in it, a whole day at least.

    \b
      mqinfer monitor accept plants:app
      mqinfer monitor accept plants:app disease_grade.grade --window 7d
    """
    settings = options.load_settings(clickhouse_url=clickhouse_url)
    options.quiet_logging(settings)
    loaded = load_app(app)
    now, seconds = time.time(), parse_duration(window)
    made = interrupt.run(
        _asked(loaded, settings, lambda one: one.accept(series or (), now - seconds, now))
    )
    for accepted, alarms in made:
        told = "too short to be held against itself"
        if alarms is not None:
            told = f"would have alarmed {len(alarms)} times in its own time"
        print(f"{accepted.series}: {accepted.reference.rows:,} rows accepted; {told}")


def acknowledge(
    app: options.AppName,
    episode: EpisodeId,
    note: Note = "",
    clickhouse_url: options.ClickHouseUrl = None,
) -> None:
    """Say that somebody looks at an alarm; it goes on standing."""
    _say(app, episode, "acknowledge", 0.0, note, clickhouse_url)


def mute(
    app: options.AppName,
    episode: EpisodeId,
    lasts: Annotated[str, typer.Option("--for", metavar="TIME", help="How long, such as 2h.")],
    note: Note = "",
    clickhouse_url: options.ClickHouseUrl = None,
) -> None:
    """Silence an alarm for a time; then it stands again, if it is not over."""
    _say(app, episode, "mute", parse_duration(lasts), note, clickhouse_url)


def truth(
    app: options.AppName,
    label: Annotated[str, typer.Argument(metavar="TABLE.COLUMN", help="Of the label.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV without a head: a row's _id, its label.")
    ],
    clickhouse_url: options.ClickHouseUrl = None,
) -> None:
    r"""Keep what is true of rows, so that the accuracy can be counted, or estimated.

    Of 100 rows of the window or more it is counted; of fewer, and where the row has a Confidence(),
    it is estimated from how often answers of each confidence were right. What is true of a live row
    judges the answers of replays to the same message. A later truth takes an earlier one's place.

    \b
      mqinfer monitor truth plants:app disease_grade.predicted_grade labelled.csv
      mqinfer monitor plants:app --target 0.9
    """
    settings = options.load_settings(clickhouse_url=clickhouse_url)
    options.quiet_logging(settings)
    loaded = load_app(app)
    table, _, column = label.rpartition(".")
    pairs = _pairs(file)
    said = _asked(loaded, settings, lambda one: one.truth(table, column, pairs, time.time()))
    print(f"{interrupt.run(said):,} rows of {label} have their truth")


def _pairs(file: Path) -> list[tuple[str, str]]:
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            found = list(enumerate(csv.reader(lines), 1))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from None
    for number, line in found:
        if line and len(line) != 2:
            raise ConfigurationError(
                f"{file}, line {number}: it has {len(line)} fields, and should have a row's _id "
                "and its label"
            )
    return [(line[0], line[1]) for _, line in found if line]


def _say(app: str, episode: str, word: str, seconds: float, note: str, url: str | None) -> None:
    settings = options.load_settings(clickhouse_url=url)
    options.quiet_logging(settings)
    loaded = load_app(app)
    said = interrupt.run(
        _asked(loaded, settings, lambda one: one.say(episode, word, time.time(), seconds, note))
    )
    print(f"{said.id} is {said.state}")


async def _asked(
    app: App,
    settings: Settings,
    question: Callable[[Monitor], Awaitable[T]],
    window: float = 86_400.0,
    target: float | None = None,
) -> T:
    from mqinfer import wiring
    from mqinfer.monitor.looking import Monitor

    database = wiring.clickhouse(settings)
    try:
        monitor = Monitor(app, database, window=window, target=target)
        await monitor.ensure()
        return await question(monitor)
    finally:
        await database.close()


async def _watch(
    app: App,
    settings: Settings,
    about: tuple[float, float | None],
    interval: float,
    port: int | None,
    as_json: bool,
) -> None:
    from mqinfer.http import serve_http
    from mqinfer.monitor.gauges import exposed

    # From here on: as if it had never looked, an alert would say so at every start.
    shown = exposed(app.name, [], time.time())
    trouble: list[str] = ["it has not looked yet"]

    async def looks(monitor: Monitor) -> None:
        nonlocal shown, trouble
        while True:
            now = time.time()
            try:
                found = await monitor.look(now)
            except MqinferError as error:
                trouble = [str(error)]  # the gauges say how old they are
                if as_json:
                    print_json({"app": app.name, "at": now, "problem": str(error)}, line=True)
                else:
                    print(f"not now: {error}")
            else:
                shown, trouble = exposed(app.name, found, now), []
                _print(app.name, found, await monitor.history(), now, as_json, line=True)
            await asyncio.sleep(interval)

    async with asyncio.TaskGroup() as group_:
        if port is not None:
            group_.create_task(
                serve_http(port, live=lambda: None, ready=lambda: trouble, metrics=lambda: shown)
            )
        group_.create_task(_asked(app, settings, looks, *about))


# --- shown --------------------------------------------------------------------------------------


def _print(
    app: str,
    found: Sequence[Standing],
    history: Sequence[Episode],
    now: float,
    as_json: bool,
    *,
    line: bool = False,
) -> None:
    if as_json:
        print_json(_facts(app, found, history, now), line=line)
        return
    if not found:
        print("no rows in the window, and no reference: is a worker running?")
        return
    rows = [
        (
            str(one.series),
            f"{one.verdict.rows:,}",
            str(one.verdict.word),
            "" if one.verdict.psi is None else f"{one.verdict.psi.value:.3f}",
            "" if one.evidence is None else f"{one.evidence:.1e}",
            one.reference.source if one.reference else "",
        )
        for one in found
    ]
    print_table(_COLUMNS, rows, right=("rows", "PSI", "evidence"))
    for one in found:
        for episode in one.episodes:
            if episode.lasts:
                _tell(one, episode)
        if one.proposed:
            print(f"{one.series}: the last day would make a reference: mqinfer monitor accept")


def _tell(one: Standing, episode: Episode) -> None:
    way = "rose" if episode.rising else "fell"
    state = episode.state if not episode.note else f"{episode.state}: {episode.note}"
    print(
        f"ALARM {episode.id} ({state}): {episode.key} {way} from {episode.before:.1%} to "
        f"{episode.after:.1%} since {_moment(episode.began)}, seen at "
        f"{_moment(episode.alarmed)} of {episode.rows:,} rows"
    )
    for change in one.verdict.changes:
        print(f"  {change}")
    if one.advice is not None:
        print(f"  retrain? {one.advice.word}: {one.advice.why}; {one.advice.what}")


def _moment(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _facts(
    app: str, found: Sequence[Standing], history: Sequence[Episode], now: float
) -> dict[str, Any]:
    import msgspec

    series = [
        {
            "series": msgspec.to_builtins(one.series),
            "what": one.what,
            "verdict": msgspec.to_builtins(one.verdict),
            "evidence": one.evidence,
            "reference": None
            if one.reference is None
            else {"made": one.reference.made, "source": one.reference.source},
            "episodes": msgspec.to_builtins(one.episodes),
            "alarms": len(one.alarms(now)),
            "proposed": one.proposed,
            "accuracy": msgspec.to_builtins(one.accuracy),
            "by_key": one.by_key,
            "advice": msgspec.to_builtins(one.advice),
        }
        for one in found
    ]
    return {
        "app": app,
        "at": now,
        "alarms": sum(len(one.alarms(now)) for one in found),
        "series": series,
        "history": msgspec.to_builtins(history),
    }


COMMANDS = {
    "show": show,
    "accept": accept,
    "acknowledge": acknowledge,
    "mute": mute,
    "truth": truth,
}
