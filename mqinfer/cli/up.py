"""`mqinfer up`: the three real servers in the foreground."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from mqinfer import signals
from mqinfer.cli import options
from mqinfer.errors import ConfigurationError

if TYPE_CHECKING:
    from mqinfer.stack.inferenceserver.server import InferenceKind
    from mqinfer.stack.programs import ServersKind


def up(
    dir: Annotated[  # noqa: A002 - the flag's name
        Path, typer.Option("--dir", help="Where data and logs are kept, for the next start too.")
    ] = Path(".mqinfer"),
    models: Annotated[
        Path | None,
        typer.Option(help="Triton model repository [default: ./triton_models if it is there]."),
    ] = None,
    nats_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 4222,
    nats_monitor_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Open NATS's monitoring; web pages can read it."),
    ] = None,
    triton_grpc_port: Annotated[
        int, typer.Option("--triton-grpc-port", "--triton-port", min=0, max=65535)
    ] = 8001,
    triton_http_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Open Triton's HTTP; web pages can have it infer."),
    ] = None,
    triton_metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Open Triton's metrics.")
    ] = None,
    clickhouse_port: Annotated[
        int, typer.Option("--clickhouse-port", min=0, max=65535, help="Of the HTTP interface.")
    ] = 8123,
    nats: Annotated[bool, typer.Option("--nats/--no-nats", help="Start NATS.")] = True,
    triton: Annotated[bool, typer.Option("--triton/--no-triton", help="Start Triton.")] = True,
    clickhouse: Annotated[
        bool, typer.Option("--clickhouse/--no-clickhouse", help="Start ClickHouse.")
    ] = True,
    password: Annotated[
        bool,
        typer.Option(
            "--password",
            help="NATS and ClickHouse want a password: of MQINFER_STACK_PASSWORD, or made up.",
        ),
    ] = False,
    inference: Annotated[
        str | None,
        typer.Option(
            metavar="WHICH",
            help="triton; onnx: our own server of its protocol, for ONNX files; auto: Triton "
            "wherever it can be had [default: auto, or MQINFER_INFERENCE].",
        ),
    ] = None,
    servers: Annotated[
        str | None,
        typer.Option(
            metavar="WHICH",
            help="path: those on the PATH; embedded: those of the extra; auto: what is on the PATH "
            "and serves, else embedded [default: auto, or MQINFER_SERVERS].",
        ),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start a server that died again.")
    ] = False,
) -> None:
    r"""Run NATS, Triton and ClickHouse on this machine until Ctrl-C.

    Real servers on their standard ports, under one folder, gone when this command ends:
    nats-server, tritonserver and clickhouse of the PATH where they are there and serve mqinfer,
    else those of the extra `embedded`.

    \b
      mqinfer up                                  everything, on the standard ports
      mqinfer up --dir /data/mq --restart         elsewhere, and kept alive
      mqinfer up --no-triton                      only what is needed
      mqinfer up --password                       on a machine that others use, too
    """
    import asyncio

    try:
        from mqinfer.stack import StackSettings, run_up
    except ImportError as error:
        raise ConfigurationError(
            f"the embedded stack is not installed ({error.name}): pip install 'mqinfer[embedded]'"
        ) from error
    if models is None and Path("triton_models").is_dir():
        models = Path("triton_models")
    if triton and models is not None and not models.is_dir():
        raise ConfigurationError(f"--models {models}: there is no such folder")
    chosen = options.load_settings(inference=inference, servers=servers)
    given = chosen.stack_password
    settings = StackSettings(
        dir=dir,
        servers=cast("ServersKind", chosen.servers),
        inference=cast("InferenceKind", chosen.inference),
        nats=nats,
        triton=triton,
        clickhouse=clickhouse,
        nats_port=nats_port,
        nats_monitor_port=nats_monitor_port,
        triton_grpc_port=triton_grpc_port,
        triton_http_port=triton_http_port,
        triton_metrics_port=triton_metrics_port,
        clickhouse_port=clickhouse_port,
        models=models,
        password=given or ("" if password else None),
        restart=restart,
    )
    signals.hold()
    raise typer.Exit(asyncio.run(run_up(settings, out=_say)))


def _say(line: str) -> None:
    bad = line.startswith(("error: ", "warning: "))
    print(line, file=sys.stderr if bad else sys.stdout, flush=True)
