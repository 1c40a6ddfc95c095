"""A comparison of runs as text: tables for a person at a terminal."""

from __future__ import annotations

from typing import Any

from mqinfer.cli.output import print_table

_NUMBERS = ("old_mean", "new_mean", "shift", "most_change")
_CELL = 200  # characters of a value; blobs that ride in a row are longer


def print_comparison(facts: dict[str, Any]) -> None:
    """Print what `mqinfer.replay.compare.compare` found, with its examples' blobs."""
    print(f"run {facts['run']} beside {facts['with']}")
    for table in facts["tables"]:
        _print_table(table)
    if not facts["tables"]:
        print("the run writes to no table")


def _print_table(table: dict[str, Any]) -> None:
    print(
        f"\ntable {table['table']}: {table['matched']:,} rows matched, {_percent(table)} the same; "
        f"{table['only_new']:,} only in the run, {table['only_old']:,} only before"
    )
    if table["ignored"]:
        print(f"ignored: {', '.join(table['ignored'])}")
    numbers = [
        (
            name,
            _percent(column),
            *(_number((column.get("numbers") or {}).get(part)) for part in _NUMBERS),
        )
        for name, column in table["columns"].items()
    ]
    if numbers:
        titles = ("column", "the same", "mean before", "mean in run", "shift", "largest change")
        print_table(titles, numbers, right=titles[1:])
    for name, column in table["columns"].items():
        changes = [
            cell for cell in column.get("changes", ()) if cell["old_value"] != cell["new_value"]
        ]
        if changes:
            print(f"changes of {name}")
            cells = [(cell["old_value"], cell["new_value"], f"{cell['n']:,}") for cell in changes]
            print_table(("before", "in run", "rows"), cells[:20], right=("rows",))
    if table["examples"]:
        print("changed most")
        _print_examples(table)


def _print_examples(table: dict[str, Any]) -> None:
    rows = [
        (example["input"], name, _text(old), _text(example["new"][name]))
        for example in table["examples"]
        for name, old in example["old"].items()
        if old != example["new"][name] and name not in table["ignored"]
    ]
    print_table(("input", "column", "before", "in run"), rows)
    lines = [
        (example["input"], f"{example['sequence']:,}" if example["sequence"] else "-", *blob)
        for example in table["examples"]
        for blob in _blobs(example)
    ]
    print("their inputs and blobs")
    titles = ("input", "sequence", "blob", "path")
    print_table(titles, list(dict.fromkeys(lines)), right=("sequence",))


def _blobs(example: dict[str, Any]) -> list[tuple[str, str]]:
    """The blobs of an example, a line each; a line without one where there are none."""
    lines = [
        (f"{blob['of']}.{blob['field']}", blob["path"] or f"inline, {blob['bytes']:,} bytes")
        for blob in example["blobs"]
    ]
    if example["problem"]:
        lines.insert(0, ("-", example["problem"]))
    return lines or [("-", "-")]


def _percent(facts: dict[str, Any]) -> str:
    return "-" if facts["agreement"] is None else f"{100 * facts['agreement']:.2f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}"


def _text(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= _CELL else f"{text[:_CELL]} ..."
