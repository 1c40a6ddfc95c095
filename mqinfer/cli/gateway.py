"""`mqinfer gateway`: the HTTP interface of an app's endpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mqinfer import signals
from mqinfer.cli import options
from mqinfer.cli.child import bind_to_supervisor
from mqinfer.cli.errors import ExitCode
from mqinfer.cli.load import load_app
from mqinfer.errors import ConfigurationError

_SAFETY = "Who may ask, and for what"
_LIMITS = "Limits"


def gateway(
    app: options.AppName,
    http: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="To listen on; 0 is a free one.")
    ] = 8080,
    http_host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 lets others in.")
    ] = "127.0.0.1",
    site: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Pages of your own to serve beside the API."),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Hashed keys of tenants.", rich_help_panel=_SAFETY),
    ] = None,
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Print a new key and its hash, and end.")
    ] = False,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL", help="Pages that may ask; repeatable.", rich_help_panel=_SAFETY
        ),
    ] = None,
    fetch_from: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="Files may be fetched from there (*.example.org); repeatable.",
            rich_help_panel=_SAFETY,
        ),
    ] = None,
    private: Annotated[
        bool,
        typer.Option(
            "--private", help="Fetch from private addresses, too.", rich_help_panel=_SAFETY
        ),
    ] = False,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificates (PEM).")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Their key (PEM).")] = None,
    max_body: Annotated[
        str, typer.Option(metavar="SIZE", help="Of a JSON body.", rich_help_panel=_LIMITS)
    ] = "1MB",
    max_upload: Annotated[
        str, typer.Option(metavar="SIZE", help="Of a body with files.", rich_help_panel=_LIMITS)
    ] = "64MB",
    max_wait: Annotated[
        str, typer.Option(metavar="TIME", help="For an answer.", rich_help_panel=_LIMITS)
    ] = "60s",
    max_backlog: Annotated[
        int,
        typer.Option(
            min=0, help="Messages open behind an endpoint; 0: any.", rich_help_panel=_LIMITS
        ),
    ] = 10_000,
    nats_url: options.NatsUrl = None,
    blobs: options.Blobs = None,
    log_level: options.LogLevel = None,
    log_format: options.LogFormat = None,
) -> None:
    r"""Serve an app's endpoints by HTTP until SIGTERM or Ctrl-C.

    It keeps nothing: any number may run, each answers for all. Workers do the work.

    \b
      mqinfer gateway plants:app                          http://127.0.0.1:8080/docs
      mqinfer gateway plants:app --site web               web/index.html at /
      mqinfer gateway plants:app --new-key                a key for a tenant
      mqinfer gateway plants:app --keys keys.toml --http-host 0.0.0.0
      curl -d '{"input": {...}}' -H 'content-type: application/json' \
        http://127.0.0.1:8080/v1/endpoints/grade/requests
    """
    if new_key:
        from mqinfer.gateway.tenants import new_key as make

        key, told = make()
        print(f"key   {key}\nhash  {told}")
        return
    bind_to_supervisor()
    settings = options.load_settings(
        nats_url=nats_url, blobs=blobs, log_level=log_level, log_format=log_format
    )
    loaded = load_app(app)
    options.configure_logs(settings)
    try:
        import jsonschema_rs  # noqa: F401
        import python_multipart  # noqa: F401
        import swagger_ui_bundle  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            f"the gateway needs {error.name}: pip install 'mqinfer[gateway]'"
        ) from None
    from mqinfer.cli.worker import run_loop
    from mqinfer.gateway.gateway import Gateway
    from mqinfer.gateway.options import Options
    from mqinfer.times import parse_duration, parse_size

    chosen = Options(
        host=http_host,
        port=http,
        keys=keys,
        origins=tuple(cors_origin or ()),
        site=site,
        tls_cert=tls_cert,
        tls_key=tls_key,
        max_body=parse_size(max_body),
        max_upload=parse_size(max_upload),
        max_wait=parse_duration(max_wait),
        max_backlog=max_backlog or None,
        fetch_from=tuple(fetch_from or ()),
        private=private,
        grace=settings.grace,
    )

    async def serve() -> int:
        import asyncio

        import structlog

        from mqinfer.collector import tune_collector

        tune_collector()
        log = structlog.get_logger("mqinfer.gateway")
        made = Gateway(loaded, chosen, settings)
        main = asyncio.current_task()
        assert main is not None
        try:
            with signals.handed_to(made.stop, main.cancel):
                await made.run(lambda url: log.info("serving HTTP", url=url))
        except asyncio.CancelledError:
            return ExitCode.INTERRUPTED
        return ExitCode.DONE

    signals.hold()
    raise typer.Exit(run_loop(settings, serve, best="uvloop"))
