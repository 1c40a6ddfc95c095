"""`python -m mqinfer.stack.inferenceserver`: serve a model repository until a signal."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import signal
import sys
import time
from pathlib import Path

import grpc  # type: ignore[import-untyped]

from mqinfer import __version__
from mqinfer.stack.inferenceserver import pages
from mqinfer.stack.inferenceserver.models import Models
from mqinfer.stack.inferenceserver.service import Service, handlers
from mqinfer.stack.ports import HOST
from mqinfer.stack.repository import RepositoryWatch

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A second server on the port would take half of the requests.
    ("grpc.so_reuseport", 0),
    # Clients look for signs of life as often as they like.
    ("grpc.http2.max_ping_strikes", 0),
)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m mqinfer.stack.inferenceserver",
        description="Triton's gRPC protocol over ONNX Runtime, on loopback.",
    )
    parser.add_argument("--models", type=Path, required=True, help="the model repository")
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--http-port", type=int, required=True, help="health and the index")
    parser.add_argument("--metrics-port", type=int, help="for Prometheus; none by default")
    parser.add_argument(
        "--model-control",
        choices=("poll", "explicit", "none"),
        default="poll",
        help="take up what changes by itself and on request, on request alone, or not at all "
        "(default: poll)",
    )
    parser.add_argument(
        "--exit-timeout",
        type=float,
        default=2.0,
        help="seconds that requests at work may take when it stops",
    )
    return parser.parse_args(arguments)


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    models = Models(options.models, _say)
    watch = RepositoryWatch(options.models, options.http_port)
    service = Service(models, __version__, control=options.model_control != "none")
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((handlers(service),))
    async with contextlib.AsyncExitStack() as stack:
        # The last one first: nothing new, then what is at work, then the processes.
        stack.push_async_callback(models.close, options.exit_timeout)
        began = time.monotonic()
        loading = asyncio.create_task(models.load_all())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((loading, stopped), return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            return
        loading.result()
        listening: list[tuple[pages.Pages, int]] = []
        if options.metrics_port is not None:
            listening.append((pages.metrics(service), options.metrics_port))
        listening.append((pages.ModelPages(service), options.http_port))
        # Ends after gRPC: while calls end, the page says that this is not ready.
        listeners = stack.enter_context(contextlib.ExitStack())
        server.add_insecure_port(f"{HOST}:{options.grpc_port}")
        await server.start()
        stack.push_async_callback(server.stop, options.exit_timeout)
        # The models' page last: whoever is told there that this is ready may call at once.
        for answered, port in listening:
            listener = await pages.serve(answered, HOST, port)
            listeners.callback(listener.close)
        if options.model_control == "poll":
            watch.start()
            stack.callback(watch.stop)
        _say(f"ready in {time.monotonic() - began:.2f} s: gRPC {HOST}:{options.grpc_port}")
        await stopped
        service.ready = False
        _say("stopping")


def _say(line: str) -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S")
    print(f"{stamp} {line}", file=sys.stderr, flush=True)


def main() -> int:
    """Run the command."""
    options = parse()
    if not options.models.is_dir():
        _say(f"error: the model repository {options.models} is not a folder")
        return 2
    factory = None
    if importlib.util.find_spec("uvloop") is not None:
        import uvloop

        factory = uvloop.new_event_loop
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(serve(options))
    except (OSError, RuntimeError) as error:  # gRPC's word for a port that is taken
        _say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
