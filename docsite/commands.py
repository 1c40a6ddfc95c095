"""The reference of the command line, written of the commands themselves."""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Iterator
from typing import Any

import typer


@functools.cache
def tree() -> Any:
    """The command `mqinfer`."""
    from mqinfer.cli.root import cli

    return typer.main.get_command(cli)


def walked(command: Any, name: str, parent: Any = None) -> Iterator[tuple[str, Any, Any]]:
    """A command and all under it: the words that call it, the command, its context."""
    context = command.context_class(command, info_name=name.rpartition(" ")[2], parent=parent)
    yield name, command, context
    if hasattr(command, "list_commands"):
        for word in command.list_commands(context):
            yield from walked(command.get_command(context, word), f"{name} {word}", context)


def reference() -> str:
    """All commands, as Markdown."""
    parts = [
        "# Commands\n\nAs `mqinfer COMMAND --help` says it; made of the commands themselves. `APP` "
        "is `module:attribute`, or a `models.toml`; times are seconds, ISO 8601 "
        "or `2h`. Exit codes: 0 done, 1 failed, 2 usage or configuration, 130 interrupted.\n"
    ]
    for name, command, context in walked(tree(), "mqinfer"):
        level = "#" * min(2 + max(name.count(" ") - 1, 0), 3)
        parts += [f"{level} {name}\n", _prose(command.help or ""), *_parameters(command, context)]
    return "\n".join(parts)


def _prose(text: str) -> str:
    """Help as Markdown: click's raw blocks are code."""
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        if paragraph.startswith("\b"):
            paragraphs.append("```\n" + paragraph.removeprefix("\b\n").rstrip() + "\n```")
        else:
            paragraphs.append(escaped(paragraph))
    return "\n\n".join(paragraphs) + "\n"


def _parameters(command: Any, context: Any) -> Iterator[str]:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"```\n{usage}\n```\n"
    records = [
        found
        for parameter in command.get_params(context)
        if "--help" not in parameter.opts and (found := parameter.get_help_record(context))
    ]
    if records:
        rows = (
            f"| <code>{_cell(html.escape(left))}</code> | {_cell(escaped(right))} |"
            for left, right in records
        )
        yield "\n".join(["| | meaning |", "|---|---|", *rows]) + "\n"


def escaped(text: str) -> str:
    """Plain text for Markdown: what stands between backticks stays code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        one if one.startswith("`") else re.sub(r"([*_\[\]])", r"\\\1", html.escape(one, False))
        for one in parts
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "&#124;")
