"""`mqinfer dead`: what could not be answered: look at it, send it back, or drop it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mqinfer.cli import interrupt, options
from mqinfer.cli.errors import Failed
from mqinfer.cli.load import load_app
from mqinfer.cli.output import print_json, print_table
from mqinfer.errors import ConfigurationError
from mqinfer.times import parse_time

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.operate.letters import DeadLetters, Letter, Selection
    from mqinfer.settings import Settings

group = typer.Typer(
    help="List, show, retry or drop dead letters: messages that could not be answered.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_LIST_LIMIT = 100


@dataclass
class _Chosen:
    """Which dead letters."""

    stage: Annotated[
        list[str] | None,
        typer.Option("--stage", "-s", metavar="NAME", help="Of this stage or sink; repeatable."),
    ] = None
    kind: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="decode, rejected, failed, timeout, killed; repeatable."),
    ] = None
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Whose error or reason holds this text.")
    ] = None
    since: options.Since = None
    until: options.Until = None
    seq: Annotated[
        list[str] | None,
        typer.Option(metavar="N|N-M", help="With these numbers, as `dead list` shows; repeatable."),
    ] = None
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="At most so many.")] = None

    def selection(self) -> Selection:
        """What is to be looked for.

        Raises:
            ConfigurationError: a time or a number is none.
        """
        from mqinfer.operate.letters import Selection, parse_sequences

        return Selection(
            stages=tuple(self.stage or ()),
            kinds=tuple(self.kind or ()),
            reason=self.reason,
            since=None if self.since is None else parse_time(self.since),
            until=None if self.until is None else parse_time(self.until),
            sequences=parse_sequences(self.seq or ()),
            limit=self.limit,
        )


@dataclass
class _Listed(_Chosen):
    """As `_Chosen`, no more than fit on a screen or two."""

    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="At most so many.")] = (
        _LIST_LIMIT
    )


@dataclass
class _Acted(_Chosen):
    """Which dead letters something is done with, and whether it is."""

    every: Annotated[
        bool, typer.Option("--all", help="Every one; needed where no filter is given.")
    ] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False


def list_letters(
    app: options.AppName,
    chosen: _Listed,
    nats_url: options.NatsUrl = None,
    as_json: options.AsJson = False,
) -> None:
    r"""List dead letters, the oldest first.

    \b
      mqinfer dead list plants:app
      mqinfer dead list plants:app --stage crop --kind decode --since 2h
      mqinfer dead list plants:app --reason "no such file" --limit 1000 --json
    """
    selection, limit = chosen.selection(), chosen.limit
    letters, total = _run(app, nats_url, lambda dead: _listed(dead, selection))
    if as_json:
        print_json({"letters": [letter.summary() for letter in letters], "kept": total})
        return
    rows = [
        (
            f"{letter.sequence}",
            f"{letter.time:%Y-%m-%d %H:%M:%S}",
            letter.stage,
            letter.kind,
            f"{letter.attempts}",
            letter.line,
        )
        for letter in letters
    ]
    if rows:
        columns = ("seq", "time (UTC)", "stage", "kind", "attempts", "reason")
        print_table(columns, rows, right=("seq", "attempts"))
    cut = f"; --limit {limit} ends the list" if limit and len(letters) == limit < total else ""
    print(f"{len(letters):,} listed, {total:,} kept{cut}")


def show(
    app: options.AppName,
    seq: Annotated[list[str], typer.Argument(metavar="SEQ...", help="As `dead list` shows.")],
    nats_url: options.NatsUrl = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Show all that is known of a dead letter.

    \b
      mqinfer dead show plants:app 17
      mqinfer dead show plants:app 17-20 --json
    """
    selection = _Chosen(seq=seq).selection()
    letters = _run(app, nats_url, lambda dead: _shown(dead, selection))
    if as_json:
        print_json([_story(letter, payload) for letter, payload in letters])
    else:
        for letter, payload in letters:
            _print_story(letter, payload)
    if not letters:
        raise ConfigurationError(f"no dead letter has the number {', '.join(seq)}")


def retry(
    app: options.AppName,
    chosen: _Acted,
    to: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="That took over, where the stage that gave up is gone."),
    ] = None,
    nats_url: options.NatsUrl = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Send dead letters back to their stages.

    The original bytes go back under the same identity, and to the stage that gave up alone; then
    the letter is deleted. What was answered before is not answered twice. A letter of a replay run
    goes back to that run, which is then to be worked on again (`mqinfer worker APP --run RUN`).
    Killed half way, it can be run again.

    \b
      mqinfer dead retry plants:app --stage crop --kind failed
      mqinfer dead retry plants:app --seq 17 --seq 20-25
      mqinfer dead retry plants:app --all --dry-run
      mqinfer dead retry plants:app --stage grade --to grade_leaf     grade was renamed
    """
    _act("retry", app, chosen, nats_url=nats_url, as_json=as_json, to=to)


def drop(
    app: options.AppName,
    chosen: _Acted,
    nats_url: options.NatsUrl = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Delete dead letters for good.

    \b
      mqinfer dead drop plants:app --kind decode --until 30d
      mqinfer dead drop plants:app --seq 17
    """
    _act("drop", app, chosen, nats_url=nats_url, as_json=as_json)


# --- doing --------------------------------------------------------------------------------------


def _run(name: str, nats_url: str | None, action: Any) -> Any:
    settings = options.load_settings(nats_url=nats_url)
    options.quiet_logging(settings)
    app = load_app(name)

    async def main() -> Any:
        async with _open(app, settings) as dead:
            return await action(dead)

    return interrupt.run(main())


@contextlib.asynccontextmanager
async def _open(app: App, settings: Settings) -> AsyncGenerator[DeadLetters, None]:
    from mqinfer import wiring
    from mqinfer.adapters.scan import Scanner
    from mqinfer.operate.letters import DeadLetters

    async with wiring.jetstream(app, settings, "dead letters") as broker:
        yield DeadLetters(app, Scanner(broker.client), broker, wiring.runs(app, broker))


async def _listed(dead: DeadLetters, selection: Selection) -> tuple[list[Letter], int]:
    letters = [letter async for letter in dead.select(selection)]
    return letters, await dead.count()


async def _shown(dead: DeadLetters, selection: Selection) -> list[tuple[Letter, bytes | None]]:
    return [(letter, await dead.payload(letter)) async for letter in dead.select(selection)]


def _act(
    verb: str,
    app: str,
    chosen: _Acted,
    *,
    nats_url: str | None,
    as_json: bool,
    to: str | None = None,
) -> None:
    selection, dry_run = chosen.selection(), chosen.dry_run
    if not selection.narrow and not chosen.every:
        raise ConfigurationError(
            f"dead {verb} without a filter takes every dead letter: say so with --all, or choose "
            "with --stage, --kind, --reason, --since, --until or --seq"
        )

    async def act(dead: DeadLetters) -> Any:
        if verb == "drop":
            return await dead.drop(selection, dry_run=dry_run)
        return await dead.retry(selection, dry_run=dry_run, to=to)

    result = _run(app, nats_url, act)
    if as_json:
        print_json({"dry_run": dry_run, **result.as_dict()})
    else:
        done = "sent back" if verb == "retry" else "dropped"
        would = "would be " if dry_run else ""
        letters = "dead letter" if result.done == 1 else "dead letters"
        print(f"{result.done:,} {letters} {would}{done}")
        for stage, count in sorted(result.by_stage.items()):
            print(f"  {stage}: {count:,}")
        for run in result.reopened:
            print(f"run {run} is at work again: mqinfer worker {app} --run {run}")
    if result.problems:
        import sys

        for problem in result.problems:
            print(f"error: {problem}", file=sys.stderr)
        raise Failed


# --- words --------------------------------------------------------------------------------------


def _story(letter: Letter, payload: bytes | None) -> dict[str, Any]:
    text: str | None = None
    if payload is not None:
        with contextlib.suppress(UnicodeDecodeError):
            text = payload.decode()
    story = letter.summary() | {
        "traceback": letter.traceback,
        "headers": letter.original_headers,
        "payload_bytes": None if payload is None else len(payload),
        "payload": text,
    }
    if payload is not None and text is None:
        import base64

        story["payload_base64"] = base64.b64encode(payload).decode()
    return story


def _print_story(letter: Letter, payload: bytes | None) -> None:
    for name, value in letter.summary().items():
        print(f"{name + ':':<13}{value}")
    for name, value in letter.original_headers.items():
        print(f"{'header:':<13}{name}: {value}")
    if payload is None:
        print(f"{'payload:':<13}(left out for its size, and no longer in the stream)")
    else:
        print(f"{'payload:':<13}{len(payload):,} bytes: {preview(payload)}")
    if letter.traceback:
        print(letter.traceback.rstrip())
    print()


def preview(payload: bytes, most: int = 500) -> str:
    """The beginning of a payload on one line, whatever is in it."""
    head = payload[:most]
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        # A character that was only cut in two is still text.
        text = head[: error.start].decode() if error.start > len(head) - 4 > 0 else repr(head)
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return text + (" ..." if len(payload) > most else "")


COMMANDS = {
    "list": list_letters,
    "show": show,
    "retry": retry,
    "drop": drop,
}
