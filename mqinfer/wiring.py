"""Wiring: adapters made from settings and handed to the rooms; the only place that knows both."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
)
from typing import TYPE_CHECKING, cast

from mqinfer import index, plan
from mqinfer.adapters.core import CoreNats
from mqinfer.adapters.jetstream import JetStream
from mqinfer.adapters.otel import open_tracing
from mqinfer.adapters.scan import Scanner
from mqinfer.headers import parse_headers
from mqinfer.model import stand_ins
from mqinfer.plan import Task
from mqinfer.starting import Patience
from mqinfer.worker.services import Services

if TYPE_CHECKING:
    from mqinfer.adapters.mlflow import Tracker
    from mqinfer.adapters.scan import Scanner
    from mqinfer.adapters.spread import Spread
    from mqinfer.adapters.timetable import Timetable
    from mqinfer.adapters.triton import TritonClient
    from mqinfer.app import App
    from mqinfer.blob import BlobStore
    from mqinfer.codec import Codec
    from mqinfer.inference.aliases import Aliases, FollowedAliases
    from mqinfer.inference.inference import Inference
    from mqinfer.jobs.jobs import Jobs
    from mqinfer.metrics import Metrics
    from mqinfer.ports import Broker, Core, Database
    from mqinfer.replay.runs import Runs
    from mqinfer.requests.requests import Requests
    from mqinfer.search.generations import Generations
    from mqinfer.search.searching import Searching
    from mqinfer.search.tools import Tools
    from mqinfer.settings import Settings
    from mqinfer.shadow.canary import Canaries
    from mqinfer.shadow.shadows import Shadows


def jetstream(app: App, settings: Settings, role: str) -> JetStream:
    """A connection to NATS, named so that an operator sees whose it is."""
    return JetStream(settings, name=f"{app.name} {role} {socket.gethostname()}:{os.getpid()}")


def triton(settings: Settings) -> TritonClient | Spread:
    """A connection to Triton, or to several used as one; made when first used."""
    from mqinfer.adapters.triton import open_triton

    return open_triton(
        settings.triton_url,
        tls_ca=settings.triton_tls_ca,
        tls_cert=settings.triton_tls_cert,
        tls_key=settings.triton_tls_key,
        headers=parse_headers(settings.triton_headers) if settings.triton_headers else None,
    )


def clickhouse(settings: Settings, *, change_timeout: float = 300.0) -> Database:
    """A connection to ClickHouse, made when first used; a change may take so many seconds."""
    from mqinfer.adapters.clickhouse import ClickHouse
    from mqinfer.adapters.replicas import Replicas

    servers = [
        ClickHouse(
            url,
            ca_cert=settings.clickhouse_tls_ca,
            client_cert=settings.clickhouse_tls_cert,
            client_key=settings.clickhouse_tls_key,
            timeout=settings.clickhouse_timeout,
            change_timeout=change_timeout,
            cluster=settings.clickhouse_cluster,
            quorum=settings.clickhouse_quorum,
        )
        for url in settings.clickhouse_servers
    ]
    return servers[0] if len(servers) == 1 else Replicas(servers)


def blobs(
    app: App, settings: Settings, broker: JetStream, metrics: Metrics | None = None
) -> BlobStore:
    """The blob store; a bucket of NATS is used over the connection there is."""
    from mqinfer.adapters.blobs import open_store, through_cache
    from mqinfer.adapters.blobstores.objects import ObjectBucket

    def bucket(name: str) -> ObjectBucket:
        from mqinfer.adapters.blobstores.natsobjects import NatsObjects

        replicas = plan.stream_spec(app).replicas
        return NatsObjects(broker, name, replicas=replicas, timeout=settings.blob_timeout)

    url = settings.blobs
    if url == "nats://":
        url += blob_bucket(app)
    store = open_store(url, timeout=settings.blob_timeout, objects=bucket, server=settings.nats_url)
    if settings.blob_cache_bounds is None:
        return store
    from mqinfer.counts import BlobCacheMetrics

    folder, limit = settings.blob_cache_bounds
    counts = BlobCacheMetrics() if metrics is None else metrics.blob_cache
    return through_cache(store, folder, limit, counts)


def runs(app: App, broker: Broker) -> Runs:
    """The replay runs of an app."""
    from mqinfer.adapters.runs import JetStreamRuns
    from mqinfer.replay.runs import Runs, bucket

    assert isinstance(broker, JetStream)
    return Runs(app, JetStreamRuns(broker, bucket(app), replicas=app.replicas))


def tracker() -> Tracker | None:
    """What keeps records of experiments; None where MLFLOW_TRACKING_URI is not set."""
    from mqinfer.adapters.mlflow import open_tracker

    return open_tracker()


def core(broker: JetStream) -> Core:
    """What is said to those who listen now, over the same connection."""
    return CoreNats(broker.client)


def scanner(broker: Broker) -> Scanner:
    """What looks into the streams of a connection."""
    from mqinfer.adapters.scan import Scanner

    assert isinstance(broker, JetStream)
    return Scanner(broker.client)


def aliases(app: App, broker: Broker) -> Aliases:
    """The aliases of an app's models."""
    from mqinfer.inference.aliases import Aliases, bucket

    return Aliases(app, broker.bucket(bucket(app), replicas=app.replicas))


def requests(app: App, services: Services) -> Requests:
    """The requests of an app."""
    from mqinfer.requests.requests import Requests

    assert services.core is not None
    assert services.streams is not None
    return Requests(
        app,
        broker=services.broker,
        core=services.core,
        streams=services.streams,
        store=services.store,
        secret=services.request_secret,
    )


def jobs(app: App, services: Services, codec: Codec) -> Jobs:
    """The jobs of an app, whose rows become messages by this codec."""
    from mqinfer.jobs.checking import encoder
    from mqinfer.jobs.jobs import Jobs

    assert services.core is not None
    assert services.streams is not None
    assert services.store is not None
    return Jobs(
        app,
        broker=services.broker,
        core=services.core,
        streams=services.streams,
        store=services.store,
        codec=codec,
        encode=encoder(codec, services.store, services.inline_limit, services.broker),
        secret=services.request_secret,
    )


def generations(app: App, broker: Broker) -> Generations:
    """The generations of an app's indexes."""
    from mqinfer.search.generations import Generations
    from mqinfer.search.places import bucket

    return Generations(app, broker.bucket(bucket(app), replicas=app.replicas))


def searching(app: App, services: Services) -> Searching:
    """What searches the indexes of an app."""
    from mqinfer.search.searching import Searching

    assert services.core is not None
    return Searching(app, services.core, generations(app, services.broker))


def searched(app: App, services: Services) -> AbstractContextManager[object]:
    """What this process searches the app's indexes with, while inside."""
    if not app.indexes:
        return nullcontext()
    return index.searching.offered(app, searching(app, services))


def keeping(app: App, services: Services, database: Database | None, every: float) -> Tools:
    """What a process needs that holds shards, and writes snapshots every so many seconds."""
    from mqinfer.search.tools import Tools

    assert services.core is not None
    assert services.store is not None
    return Tools(
        broker=services.broker,
        core=services.core,
        store=services.store,
        generations=generations(app, services.broker),
        database=database,
        snapshot_every=every,
    )


def shadows(app: App, broker: Broker) -> Shadows:
    """The shadows of an app's models."""
    from mqinfer.inference.aliases import bucket
    from mqinfer.shadow.shadows import Shadows

    return Shadows(app, broker.bucket(bucket(app), replicas=app.replicas), runs(app, broker))


def canaries(app: App, broker: Broker) -> Canaries:
    """The canaries of an app's models."""
    from mqinfer.shadow.canary import Canaries

    return Canaries(app, aliases(app, broker))


def followed_aliases(app: App, broker: JetStream) -> FollowedAliases | None:
    """What a process knows of the aliases that the app follows; None if it follows none."""
    from mqinfer.inference.aliases import FollowedAliases, bucket, followed

    wanted = followed(app)
    return FollowedAliases(broker.bucket(bucket(app)), wanted) if wanted else None


def timetable(app: App, broker: JetStream) -> Timetable:
    """The timers of an app; nothing is asked of the server yet."""
    from mqinfer.adapters.timetable import Timetable
    from mqinfer.timers.places import stream_of

    return Timetable(broker, stream_of(app.name))


def blob_bucket(app: App) -> str:
    """The bucket that `MQINFER_BLOBS=nats://` names."""
    return f"{app.name}-blobs"


@asynccontextmanager
async def services(
    app: App,
    settings: Settings,
    role: str,
    tasks: Sequence[Task] = (),
    patience: Patience | None = None,
) -> AsyncIterator[Services]:
    """Everything that `tasks` need of the outside world, open; closed at the end.

    An idle worker of a stage without models never loads gRPC, and one without tables never loads
    the ClickHouse client.

    Args:
        app: the app.
        settings: addresses and credentials.
        role: what the process is, for the names of connections.
        tasks: what is to be worked on.
        patience: waits for NATS; None does not. One that does not wait looks for Triton and
            ClickHouse, too, which otherwise may be away: work waits.

    Raises:
        Unavailable: a server does not answer, and it is not waited for.
        ConfigurationError: a setting cannot be used.
    """
    from mqinfer.observe import Metrics

    patience = patience or Patience(wait=False)
    async with AsyncExitStack() as stack:
        broker = await patience.answer(
            lambda: stack.enter_async_context(jetstream(app, settings, role))
        )
        metrics = Metrics(app.name)
        tracing = open_tracing(app.name)
        if tracing is not None:
            stack.push_async_callback(tracing.flush)
        store = blobs(app, settings, broker, metrics)
        stack.push_async_callback(store.close)
        inference: Inference | None = None
        if app.models and stand_ins:
            inference = cast("Inference", stand_ins[-1])
        elif app.models:
            from mqinfer.inference.inference import Inference

            server = triton(settings)
            stack.push_async_callback(server.close)
            versions = followed_aliases(app, broker)
            if versions is not None and any(task.stage is not None for task in tasks):
                # Before the first call, or another version might answer it.
                await patience.answer(versions.load)
            if not patience.wait and any(task.stage and task.stage.models for task in tasks):
                await server.ready()
            if tracing is None:
                inference = Inference(server, aliases=versions, observer=metrics)
            else:
                from mqinfer.inference.traced import TracedInference

                inference = TracedInference(
                    server, aliases=versions, observer=metrics, tracing=tracing
                )
        database = None
        if any(task.row is not None for task in tasks):
            database = clickhouse(settings)
            stack.push_async_callback(database.close)
            # Before the event loop is watched: on a busy machine it stands still for a while.
            database.load()
            if not patience.wait:
                await database.ping()
        yield Services(
            broker=broker,
            store=store,
            inference=inference,
            database=database,
            metrics=metrics,
            inline_limit=settings.inline_blob_bytes,
            patience=patience,
            lines=broker,
            streams=Scanner(broker.client),
            timers=timetable(app, broker),
            core=CoreNats(broker.client),
            request_secret=settings.request_secret or "",
            tracing=tracing,
        )
