"""`mqinfer permissions`: the least that a worker needs of NATS."""

from __future__ import annotations

from typing import Annotated

import typer

from mqinfer.cli import options
from mqinfer.cli.load import load_app
from mqinfer.cli.output import print_json
from mqinfer.errors import ConfigurationError


def permissions(
    app: options.AppName,
    stage: Annotated[
        list[str] | None,
        typer.Option(metavar="S", help="A stage or sink of the worker; all by default."),
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="A replay run to work on as well; '*' is any."),
    ] = None,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(metavar="E", help="Of a client that asks this endpoint; '*' is all."),
    ] = None,
    gateway: Annotated[bool, typer.Option("--gateway", help="Of `mqinfer gateway`.")] = False,
    index: Annotated[
        list[str] | None,
        typer.Option(metavar="I", help="Of `mqinfer index APP serve` of this index; '*' is all."),
    ] = None,
    inbox_prefix: Annotated[
        str,
        typer.Option(metavar="P", help="The worker's MQINFER_NATS_INBOX_PREFIX; one a user."),
    ] = "_INBOX",
    blobs: options.Blobs = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Print the least NATS permissions of a worker, as nats-server's configuration has them.

    They suffice once the streams, consumers and buckets exist: the first start, by an operator,
    needs more. Asks no server. With --run also for `mqinfer worker APP --run RUN`, which makes the
    run's consumers; '*' stands for every consumer of the app's stream, since NATS has no finer.

    \b
      mqinfer permissions plants:app --stage crop --inbox-prefix _INBOX_crop
      mqinfer permissions plants:app --run may --inbox-prefix _INBOX_may
      mqinfer permissions plants:app --endpoint grade --inbox-prefix _INBOX_web
      mqinfer permissions plants:app --gateway --inbox-prefix _INBOX_gateway
      mqinfer permissions plants:app --index '*' --inbox-prefix _INBOX_index
    """
    from mqinfer.operate.permissions import keeper, requester
    from mqinfer.operate.permissions import permissions as least

    loaded = load_app(app)
    settings = options.load_settings(blobs=blobs)
    store, domain = settings.blobs, settings.nats_domain
    bucket = None
    if store.startswith("nats://"):
        bucket = store.removeprefix("nats://").strip("/") or f"{loaded.name}-blobs"
    if endpoint and (stage or run):
        raise ConfigurationError("--endpoint is of a client, and goes without --stage and --run")
    if gateway and (stage or run):
        raise ConfigurationError("--gateway is of one alone, and goes without --stage and --run")
    if index and (stage or run or endpoint or gateway):
        raise ConfigurationError("--index is of a process of its own, and goes alone")
    if index:
        held = None if "*" in index else index
        found = keeper(loaded, held, inbox_prefix=inbox_prefix, blob_bucket=bucket)
    elif endpoint or gateway:
        chosen = None if not endpoint or "*" in endpoint else endpoint
        found = requester(
            loaded,
            chosen,
            gateway=gateway,
            inbox_prefix=inbox_prefix,
            blob_bucket=bucket,
            domain=domain,
        )
    else:
        found = least(
            loaded,
            stage or None,
            replays=run or (),
            inbox_prefix=inbox_prefix,
            blob_bucket=bucket,
            domain=domain,
        )
    if as_json:
        facts = {"publish": list(found.publish), "subscribe": list(found.subscribe)}
        print_json(facts | ({"allow_responses": True} if found.answers else {}))
    else:
        print(found.config())
