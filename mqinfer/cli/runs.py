"""`mqinfer runs`: replays that were made: look at them, compare, promote, undo, discard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from mqinfer.cli import interrupt, options, tracking
from mqinfer.cli.comparison import print_comparison
from mqinfer.cli.load import load_app
from mqinfer.cli.output import print_json, print_table

if TYPE_CHECKING:
    from mqinfer.adapters.jetstream import JetStream
    from mqinfer.app import App
    from mqinfer.ports import Database
    from mqinfer.replay.examples import Attachments
    from mqinfer.replay.promote import Promotions
    from mqinfer.replay.run import Run
    from mqinfer.replay.runs import Runs
    from mqinfer.settings import Settings

T = TypeVar("T")

_SIDES = ("models", "superseded by", "with models")
_JSON_ROWS = 1000  # superseded rows in `runs show --json`, unless a number is given

group = typer.Typer(
    help="List, show, stop, compare, promote, undo or discard replay runs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@dataclass
class _OfRun:
    """What commands about one run and its rows take."""

    app: options.AppName
    run: options.RunName
    nats_url: options.NatsUrl = None
    clickhouse_url: options.ClickHouseUrl = None
    as_json: options.AsJson = False


@dataclass
class _Open:
    """What the commands work with."""

    app: App
    settings: Settings
    broker: JetStream
    runs: Runs
    promotions: Promotions
    db: Database


def _of_run(asked: _OfRun, action: Callable[[_Open], Awaitable[T]]) -> T:
    return _run(asked.app, action, nats_url=asked.nats_url, clickhouse_url=asked.clickhouse_url)


def _run(name: str, action: Callable[[_Open], Awaitable[T]], **urls: str | None) -> T:
    settings = options.load_settings(**urls)
    options.quiet_logging(settings)
    app = load_app(name)

    async def work() -> T:
        from mqinfer import wiring
        from mqinfer.replay.promote import Promotions

        async with AsyncExitStack() as stack:
            broker = await stack.enter_async_context(wiring.jetstream(app, settings, "runs"))
            db = wiring.clickhouse(settings)
            stack.push_async_callback(db.close)
            runs = wiring.runs(app, broker)
            return await action(_Open(app, settings, broker, runs, Promotions(app, runs, db), db))

    return interrupt.run(work())


def _facts(run: Run) -> dict[str, Any]:
    import msgspec

    facts = msgspec.structs.asdict(run)
    del facts["token"]
    if run.open:
        facts["end"] = None
    return facts


def list_runs(
    app: options.AppName, nats_url: options.NatsUrl = None, as_json: options.AsJson = False
) -> None:
    r"""List the replay runs of an app, the oldest first.

    \b
      mqinfer runs list plants:app
    """
    found = _run(app, lambda at: at.runs.all(), nats_url=nats_url)
    if as_json:
        print_json([_facts(run) for run in found])
        return
    rows = [
        (
            run.name,
            run.stage,
            f"{run.start:,}",
            "goes on" if run.open else f"{run.end:,}",
            "-" if run.open else f"{run.total:,}",
            _models(run),
            run.state,
            f"{run.created:%Y-%m-%d %H:%M:%S}",
        )
        for run in found
    ]
    if rows:
        columns = ("run", "stage", "from", "to", "messages", "models", "state", "made (UTC)")
        print_table(columns, rows, right=("from", "to", "messages"))
    print(f"{len(rows):,} runs")


def _models(run: Run) -> str:
    return " ".join(f"{name}={version}" for name, version in sorted(run.models.items()))


def show(
    *,
    rows: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="List so many superseded rows; with --json 1000 unless said."
        ),
    ] = None,
    asked: _OfRun,
) -> None:
    r"""Show a run: its range, how far it is, whose rows it superseded, and who superseded its own.

    \b
      mqinfer runs show plants:app may
      mqinfer runs show plants:app may --rows 20
    """
    if rows is None:
        rows = _JSON_ROWS if asked.as_json else 0
    facts = _of_run(asked, lambda at: _shown(at, asked.run, rows))
    if asked.as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        if name != "tables":
            print(f"{name + ':':12} {_text(value)}")
    for table, counts in facts["tables"].items():
        print(f"table {table}: {counts['rows']:,} rows, {counts['shown']:,} shown", end="")
        if counts["supersedes"] is None:
            print("; not promoted")
        else:
            print()
            _print_succession(asked.run, counts)


def _print_succession(run: str, table: dict[str, Any]) -> None:
    cells = [(run, cell) for cell in table["supersedes"]]
    cells += [(cell["run"], cell) for cell in table["superseded_by"]]
    if cells:
        rows = [
            (f"{cell['rows']:,}", *_told(cell["old"]), *_told(cell["new"], heir))
            for heir, cell in cells
        ]
        print_table(("rows", "of", *_SIDES), rows, right=("rows",))
    if table["pairs"]:
        pairs = [
            (pair["input"], _text(pair["key"]), *_told(pair["old"]), *_told(pair["new"], run))
            for pair in table["pairs"]
        ]
        print_table(("input", "key", "row of", *_SIDES), pairs)


def _told(side: dict[str, Any] | None, heir: str = "") -> tuple[str, str]:
    """Whose row it is, and the models that made it."""
    if side is None:
        return f"{heir} (no row)" if heir else "no row", ""
    return side["run"] or "live", _text(side["models"])


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={item}" for name, item in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        return "; ".join(map(str, value)) or "-"
    return "-" if value is None else f"{value:,}" if type(value) is int else str(value)


async def _shown(at: _Open, name: str, rows: int) -> dict[str, Any]:
    from mqinfer.replay import consumers, coverage
    from mqinfer.replay.superseded import superseded

    run = await at.runs.get(name)
    facts = _facts(run) | {"settled": await consumers.progress(at.app, run, at.broker, at.runs)}
    facts["answered"], facts["tables"] = None, {}
    if run.state != "discarded" and coverage.row_types(at.app, run):
        facts["answered"] = await at.promotions.covered(run)
        told = await superseded(at.app, run, await at.runs.all(), at.db, rows=rows)
        nothing = {"supersedes": None, "superseded_by": None, "pairs": None}
        for table, counts in (await at.promotions.rows(run)).items():
            facts["tables"][table] = counts | told.get(table, nothing)
    return facts


def stop(
    app: options.AppName,
    run: options.RunName,
    nats_url: options.NatsUrl = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Stop a run in order, wherever its workers are; `mqinfer worker APP --run RUN` goes on.

    \b
      mqinfer runs stop plants:app may
    """

    async def act(at: _Open) -> Run:
        await at.runs.get(run)
        return await at.runs.stop(run)

    _said(_run(app, act, nats_url=nats_url), as_json)


def compare(
    *,
    other: Annotated[
        str, typer.Option("--with", metavar="live|RUN", help="The old side.")
    ] = "live",
    examples: Annotated[
        int, typer.Option(metavar="N", min=0, help="Rows that changed, for each table.")
    ] = 10,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Not to be compared, in any table; repeatable."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page, with pictures of examples.")
    ] = None,
    asked: _OfRun,
) -> None:
    r"""Compare a run's rows with the live ones, or with another run's, input by input.

    \b
      mqinfer runs compare plants:app may
      mqinfer runs compare plants:app may --with april --json
      mqinfer runs compare plants:app may --ignore disease_model_version
      mqinfer runs compare plants:app may --html may.html --examples 40

    With MLFLOW_TRACKING_URI it is logged to MLflow as well (docs/replay.md).
    """

    async def act(at: _Open) -> tuple[App, Run, dict[str, Any], str | None]:
        from mqinfer.adapters.scan import Scanner
        from mqinfer.replay.compare import compare as compared
        from mqinfer.replay.examples import attach

        new = await at.runs.get(asked.run)
        old = None if other == "live" else await at.runs.get(other)
        found = await compared(at.app, new, old, at.db, examples=examples, ignore=ignore or ())
        attached = await attach(at.app, new, found, Scanner(at.broker.client))
        return at.app, new, found, None if html is None else await _page(at, found, attached)

    app, run, facts, page = _of_run(asked, act)
    if html is not None and page is not None:
        html.write_text(page)
    if asked.as_json:
        print_json(facts)
    else:
        print_comparison(facts)
    tracking.keep(app, run, facts, page)


async def _page(at: _Open, facts: dict[str, Any], attached: Attachments) -> str:
    from mqinfer import wiring
    from mqinfer.replay.comparepage import page
    from mqinfer.replay.examples import figures

    store = wiring.blobs(at.app, at.settings, at.broker)
    try:
        return page(facts, await figures(attached, store))
    finally:
        await store.close()


def promote(asked: _OfRun) -> None:
    r"""Show a run's rows in the tables instead of those they supersede; can be undone.

    For exactly the messages that the run has answered. Killed half way, run it again.

    \b
      mqinfer runs promote plants:app may
    """

    async def act(at: _Open) -> tuple[Run, str | None, str | None]:
        from mqinfer.replay.promote import late, remembered

        promoted = await at.promotions.promote(asked.run)
        warning = await late(at.app, promoted, at.broker)
        return promoted, warning, remembered(at.app, promoted)

    found, warning, note = _of_run(asked, act)
    _said(found, asked.as_json, warning)
    if note and not asked.as_json:
        print(f"note: {note}")


def undo(asked: _OfRun) -> None:
    r"""Show again what was shown before a run was promoted.

    \b
      mqinfer runs undo plants:app may
    """
    _said(_of_run(asked, lambda at: at.promotions.undo(asked.run)), asked.as_json)


def discard(asked: _OfRun) -> None:
    r"""Delete a run's rows, messages, states and consumers. Killed half way, run it again.

    \b
      mqinfer runs discard plants:app may
    """
    _said(_of_run(asked, lambda at: at.promotions.discard(asked.run)), asked.as_json)


def _said(run: Run, as_json: bool, warning: str | None = None) -> None:
    if as_json:
        print_json(_facts(run) | {"warning": warning})
        return
    print(f"run {run.name} is {run.state}")
    if warning:
        print(f"warning: {warning}")


COMMANDS = {
    "list": list_runs,
    "show": show,
    "stop": stop,
    "compare": compare,
    "promote": promote,
    "undo": undo,
    "discard": discard,
}
