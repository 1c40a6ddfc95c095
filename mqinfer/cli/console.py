"""`mqinfer console`: pages on which people look at an app, and act."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mqinfer import signals
from mqinfer.cli import options
from mqinfer.cli.child import bind_to_supervisor
from mqinfer.cli.errors import ExitCode
from mqinfer.cli.load import load_app


def console(
    app: options.AppName,
    http: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="To listen on; port 0 is a free one.")
    ] = "127.0.0.1:8090",
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What opens it (better: MQINFER_CONSOLE_TOKEN); needed beyond this machine.",
        ),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Show, and let nobody change anything.")
    ] = False,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificates (PEM).")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Their key (PEM).")] = None,
    *,
    process: options.Process,
) -> None:
    r"""Serve pages that show an app, and on which a person acts, until SIGTERM or Ctrl-C.

    On this machine whoever comes may look; to act one opens the address that is printed, which has
    the token in it. It keeps nothing: any number may run.

    \b
      mqinfer console plants:app
      mqinfer console plants:app --read-only
      MQINFER_CONSOLE_TOKEN=... mqinfer console plants:app --http 0.0.0.0:8090
    """
    import dataclasses

    bind_to_supervisor()
    settings = options.load_settings(**dataclasses.asdict(process), console_token=token)
    loaded = load_app(app)
    options.configure_logs(settings)
    from mqinfer.cli.worker import run_loop
    from mqinfer.console.console import Console
    from mqinfer.console.options import Options, parse_address

    host, port = parse_address(http)
    chosen = Options(
        host=host,
        port=port,
        token=settings.console_token or "",
        read_only=read_only,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )

    async def serve() -> int:
        import asyncio

        made = Console(loaded, chosen, settings)
        main = asyncio.current_task()
        assert main is not None

        def started(url: str) -> None:
            # Not a line of the log: that is kept, and the token opens.
            print(f"the console of {loaded.name} is at {url}/", flush=True)
            if not read_only:
                print(f"to act, open {made.link}", flush=True)

        try:
            with signals.handed_to(made.stop, main.cancel):
                await made.run(started)
        except asyncio.CancelledError:
            return ExitCode.INTERRUPTED
        return ExitCode.DONE

    signals.hold()
    raise typer.Exit(run_loop(settings, serve))
