"""Arguments and options that several commands share, and the settings that they make."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

import typer

from mqinfer.settings import Settings
from mqinfer.times import TIME_HELP

_SERVERS = "Servers (else MQINFER_* variables)"

AppName = Annotated[
    str,
    typer.Argument(
        metavar="APP",
        help="module:attribute, such as app:app; or a models.toml of classes.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print facts as JSON.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="As `runs list` shows.")]
Since = Annotated[str | None, typer.Option(metavar="TIME", help=f"From then on: {TIME_HELP}.")]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Until then.")]
NatsUrl = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Servers of NATS.", rich_help_panel=_SERVERS),
]
TritonUrl = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Triton's gRPC endpoint.", rich_help_panel=_SERVERS),
]
ClickHouseUrl = Annotated[
    str | None,
    typer.Option(
        "--clickhouse-url",
        metavar="URL",
        help="ClickHouse's HTTP interface with user and database.",
        rich_help_panel=_SERVERS,
    ),
]
Blobs = Annotated[
    str | None,
    typer.Option(metavar="STORE", help="Folder or bucket of blobs.", rich_help_panel=_SERVERS),
]
LogLevel = Annotated[
    str | None, typer.Option(metavar="LEVEL", help="debug, info, warning, error or critical.")
]
LogFormat = Annotated[str | None, typer.Option(metavar="FORMAT", help="console, json or auto.")]


@dataclass
class Servers:
    """Where the servers are."""

    nats_url: NatsUrl = None
    triton_url: TritonUrl = None
    clickhouse_url: ClickHouseUrl = None


@dataclass
class Process(Servers):
    """What a process that handles messages takes."""

    blobs: Blobs = None
    log_level: LogLevel = None
    log_format: LogFormat = None


def load_settings(**flags: str | None) -> Settings:
    """Settings from the environment; flags that were given win.

    Raises:
        ConfigurationError: a value is not allowed.
    """
    return Settings.load(None, **flags)


def configure_logs(settings: Settings) -> None:
    """Logs of commands that run something."""
    from mqinfer.observe import configure_logging

    configure_logging(settings.log_level, settings.log_format)


def quiet_logging(settings: Settings) -> None:
    """Logs for commands that print facts: warnings only, unless a level was chosen."""
    from mqinfer.observe import configure_logging

    chosen = os.environ.get("MQINFER_LOG_LEVEL")
    configure_logging(settings.log_level if chosen else "warning", settings.log_format)
