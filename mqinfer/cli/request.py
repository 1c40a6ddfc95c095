"""`mqinfer request`: ask an endpoint, and wait for the answer."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mqinfer.cli import interrupt, options
from mqinfer.cli.errors import Failed
from mqinfer.cli.load import load_app
from mqinfer.cli.output import print_json
from mqinfer.errors import ConfigurationError, MqinferError
from mqinfer.times import parse_duration

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.requests.request import Request
    from mqinfer.settings import Settings


def request(
    app: options.AppName,
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="As the app declares it.")],
    asked: Annotated[str, typer.Argument(metavar="JSON", help="What is asked; - is stdin.")],
    wait: Annotated[
        str, typer.Option(metavar="TIME", help="Wait so long for the end; 0 does not.")
    ] = "10",
    key: Annotated[
        str | None,
        typer.Option(metavar="K", help="Asked again under the same key, it is the same request."),
    ] = None,
    nats_url: options.NatsUrl = None,
    blobs: options.Blobs = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Ask an endpoint, and print the answers, a line each.

    What goes wrong is said on stderr, and is exit code 1: also that the request has not ended in
    time. It goes on, and `mqinfer requests show` tells of it by the id that is printed.

    \b
      mqinfer request plants:app grade '{"n": 3}'
      mqinfer request plants:app grade '{"n": 3}' --wait 0 --json
      mqinfer request plants:app grade - --key order-17 < asked.json
    """
    settings = options.load_settings(nats_url=nats_url, blobs=blobs)
    options.quiet_logging(settings)
    seconds = parse_duration(wait)
    payload = sys.stdin.buffer.read() if asked == "-" else asked.encode()
    loaded = load_app(app)
    found, facts = interrupt.run(_ask(loaded, settings, endpoint, payload, seconds, key))
    tell(found, facts, as_json=as_json)
    if found.status not in ("succeeded", "partial") and (seconds > 0 or found.done):
        raise Failed(f"request {found.id} is {found.status}")


async def _ask(
    app: App, settings: Settings, endpoint: str, payload: bytes, wait: float, key: str | None
) -> tuple[Request[Any], dict[str, Any]]:
    import mqinfer
    from mqinfer.codec import Codec

    if endpoint not in app.endpoints:
        raise ConfigurationError(
            f"app {app.name} has no endpoint {endpoint!r}; it has "
            f"{', '.join(app.endpoints) or 'none: declare one with app.endpoint(...)'}"
        )
    message = Codec().decode(app.endpoints[endpoint].reads, payload, "application/json")
    async with mqinfer.connect(app, settings) as client:
        found = await client.request(message, endpoint=endpoint, wait=wait, key=key)
        return found, await found.facts()


def tell(found: Request[Any], facts: dict[str, Any], *, as_json: bool) -> None:
    """Print a request, and its answers.

    Args:
        found: the request.
        facts: of it.
        as_json: as JSON, all of it.
    """
    if as_json:
        print_json(facts)
    else:
        import json

        print(f"{found.id} is {found.status}", file=sys.stderr)
        for answer in facts["answers"]:
            print(json.dumps(answer["data"], ensure_ascii=False))
        for error in found.errors:
            where = f" (dead letter {error.letter})" if error.letter else ""
            print(f"error: {error}{where}", file=sys.stderr)


async def of_client(app: App, settings: Settings, identity: str, *, cancel: bool) -> Any:
    """A request by its id, and its facts; canceled before, if asked for.

    Raises:
        RequestUnknown: there is none.
        MqinferError: it had ended, and cannot be canceled.
    """
    import mqinfer

    async with mqinfer.connect(app, settings) as client:
        found = await client.get_request(identity)
        if cancel and not await found.cancel():
            raise MqinferError(f"request {identity} had ended before: it is {found.status}")
        return found, await found.facts()
