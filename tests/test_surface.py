"""What a user may hold on to: every public name with its signature, and that each says its job.

`python -m tests.test_surface` prints the list as it is now.
"""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import textwrap
from collections.abc import Collection, Iterator
from types import ModuleType
from typing import Any, get_overloads

import pytest

import mqinfer
from mqinfer.app import App
from mqinfer.around import Surrounded
from mqinfer.client import Client
from mqinfer.clientrequests import ClientRequests
from mqinfer.clientsearch import ClientSearch
from mqinfer.clientstates import ClientStates
from mqinfer.clienttimers import ClientTimers
from mqinfer.clocked import Clocked
from mqinfer.endpoint import Endpoints
from mqinfer.index import Indexes
from mqinfer.message import Message, MessageMeta, Row
from mqinfer.statetype import State, StateMeta

MODULES = ("mqinfer", "mqinfer.errors", "mqinfer.testing", "mqinfer.stack", "mqinfer.catalog")
# Classes of which a part lies in a file of its own.
WHOLES = (App, Client)
PARTS = (
    Clocked,
    Endpoints,
    Indexes,
    Surrounded,
    ClientTimers,
    ClientStates,
    ClientRequests,
    ClientSearch,
)
KINDS = tuple(type(inspect.Parameter.KEYWORD_ONLY))
KEYWORDS = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)

SURFACE = """
mqinfer

class Answer(outputs: Mapping[str, Array], *, model: str, version: str)
class App(
    name: str,
    *,
    max_age: float | str = '7d',
    max_bytes: int | str | None = None,
    replicas: int = 1,
    duplicate_window: float | str = '2m',
    partitions: int = 8,
    lifespan: Lifespan | None = None,
)
    around(hook: AnyHook, /) -> AnyHook
    around(*, stages: str | Sequence[str]) -> Callable[[AnyHook], AnyHook]
    connect(settings: Settings | None = None) -> AbstractAsyncContextManager[Any]
    cron(
        fields: str,
        *,
        zone: str | None = None,
        catch_up: CatchUp = 'all',
        tolerance: float | str = 60.0,
        **stage: Unpack[StageKeywords],
    ) -> Callable[[Handler], Handler]
    endpoint(
        name: str,
        reads: type[Message],
        *,
        answers: type[A] | tuple[type[A], ...],
        deadline: float | str = '5m',
        keep: float | str = '24h',
    ) -> Endpoint[A]
    every(
        period: float | str,
        *,
        at: str | None = None,
        zone: str | None = None,
        catch_up: CatchUp = 'all',
        tolerance: float | str = 60.0,
        **stage: Unpack[StageKeywords],
    ) -> Callable[[Handler], Handler]
    filters(
        kind: type[Message],
        run: str | None = None,
        *,
        bulk: bool = False,
    ) -> tuple[str, ...]
    index(
        name: str,
        *,
        of: type[Message] | Mapping[str, type[Message]],
        key: str,
        vector: str = 'vector',
        filters: Sequence[str] = (),
        shards: int = 1,
        metric: Metric = 'cosine',
        dtype: Dtype = 'bf16',
        exact_below: int = 20000,
        connectivity: int = 16,
        expansion_add: int = 128,
        expansion_search: int = 64,
    ) -> Index
    join(
        root: type[Message],
        *,
        of: type[Message] | tuple[type[Message], ...],
        deadline: float | str | None = None,
        name: str | None = None,
        models: Sequence[Model] = (),
        lifespan: Lifespan | None = None,
        **limits: Any,
    ) -> Callable[[Handler], Handler]
    kind_of(subject: str) -> type[Message] | None
    messages: tuple[type[Message], ...]
    model(
        name: str,
        *,
        version: str | int | None = None,
        alias: str | None = None,
        inputs: Mapping[str, Tensor] | None = None,
        timeout: float | None = None,
        priority: Priority = 'live',
        max_batch: int | None = None,
        pad: Mapping[str, bool | float | str | bytes] | None = None,
    ) -> Model
    resolve() -> tuple[dict[str, Stage], list[WiringError]]
    rows: dict[str, type[Row]]
    stage(handler: Handler, /) -> Handler
    stage(
        *,
        name: str | None = None,
        models: Sequence[Model] = (),
        lifespan: Lifespan | None = None,
        early: bool = False,
        start: Start | str | None = None,
        later: type[Message] | Sequence[type[Message]] = (),
        max_in_flight: int = 2048,
        max_bytes: int | str = 67108864,
        concurrency: int | None = None,
        timeout: float | str = 60.0,
        attempts: int = 5,
        snooze_for: float | str = 86400.0,
        backoff: Backoff = Backoff(initial=0.5, factor=2.0, maximum=60.0, jitter=0.2),
        ack_wait: float | str = 30.0,
        batch_size: int = 100,
        batch_wait: float | str = 0.05,
        max_downstream: int | None = 1000000,
    ) -> Callable[[Handler], Handler]
    stages: dict[str, Stage]
    subject(kind: type[Message], run: str | None = None, *, bulk: bool = False) -> str
class Backoff(
    *,
    initial: float = 0.5,
    factor: float = 2.0,
    maximum: float = 60.0,
    jitter: float = 0.2,
)
    delay(attempt: int, random: float = 0.5) -> float
class Blob(data: bytes | bytearray | memoryview, *, path: str | None = None)
    at(path: str) -> Blob
    bind(store: BlobStore | None) -> Blob
    async bytes(*, max_bytes: int | None = None) -> bytes
    from_wire(value: Any) -> Blob
    inline: bytes | None
    keep_under(folder: str) -> None
    path: str | None
    async pixels(
        *,
        min_side: int = 1,
        max_pixels: int | None = None,
        max_bytes: int | None = None,
        target: int | None = None,
        size: tuple[int, int] | None = None,
        dtype: Depth = 'uint8',
    ) -> Pixels
    async save(store: BlobStore, inline_limit: int) -> None
    wire() -> Any
class Client(app: App, services: Services, inference: Inference | None = None)
    blobs: BlobStore
    async cancel(name: str, *, key: object = None, stage: str | None = None) -> bool
    async generation(index: Index | str, model: str | None = None) -> Generation
    async generations(index: Index | str, model: str | None = None) -> Mapping[int, Generation]
    async get_request(id: str, *, tenant: str = '') -> Request[Any]
    async lag(name: str) -> int
    async later(
        message: Message,
        *,
        after: float | str | datetime.timedelta | None = None,
        at: datetime.datetime | None = None,
        name: str | None = None,
        key: object = None,
        id: str | None = None,
    ) -> str
    model(model: Model | str) -> Model
    async model_of(index: Index | str, identity: str) -> str
    async publish(
        message: Message,
        *,
        id: str | None = None,
        timeout: float = 30.0,
        on_repeat: Callable[[str], object] | None = None,
    ) -> str
    async publish_all(
        messages: Sequence[Message],
        *,
        ids: Sequence[str] | None = None,
        on_repeat: Callable[[str], object] | None = None,
    ) -> list[str]
    async publish_raw(
        subject: str,
        payload: bytes,
        *,
        content_type: str | None = None,
        id: str | None = None,
        timeout: float = 30.0,
        on_repeat: Callable[[str], object] | None = None,
    ) -> str
    async request(
        message: Message,
        *,
        endpoint: Endpoint[A],
        wait: float = 0.0,
        key: str | None = None,
        tenant: str = '',
        headers: Mapping[str, str] | None = None,
    ) -> Request[A]
    async request(
        message: Message,
        *,
        endpoint: str | None = None,
        wait: float = 0.0,
        key: str | None = None,
        tenant: str = '',
        headers: Mapping[str, str] | None = None,
    ) -> Request[Any]
    async requests() -> Requests
    async search(
        index: Index | str,
        vector: Any,
        k: int = 10,
        *,
        where: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | None = None,
        generations: Mapping[str, int] | None = None,
        timeout: float = 5.0,
    ) -> Hits
    async state(stage: str, key: object, *, run: str | None = None) -> State | None
    async state(stage: str, key: object, kind: type[S], *, run: str | None = None) -> S | None
    async states(stage: str, *, run: str | None = None) -> dict[str, State]
    async weights(index: Index | str) -> dict[str, float]
class Column(type: str)
class Confidence(of: str | None = None)
class Context(
    *,
    id: str,
    stage: str,
    sequence: int,
    attempt: int = 1,
    run: str | None = None,
    subject: str = '',
    headers: Mapping[str, str] | None = None,
    published: float = 0.0,
    state: Any = None,
    models: dict[str, str] | None = None,
    blobs: BlobStore | None = None,
    died: Sequence[Died] = (),
    incomplete: str = '',
    missing: Mapping[str, int] | None = None,
)
    cancel(name: str, *, key: object = None) -> Awaitable[None]
    died: tuple[Died, ...]
    emit(output: Message) -> Awaitable[None]
    incomplete: str
    join_told(died: tuple[Died, ...], incomplete: str, missing: dict[str, int]) -> None
    later(
        message: Message,
        *,
        after: float | str | datetime.timedelta | None = None,
        at: datetime.datetime | None = None,
        name: str | None = None,
        key: object = None,
    ) -> Awaitable[None]
    log: FilteringBoundLogger
    missing: dict[str, int]
    model_calls(now: float, queued: int, sent: int) -> None
    pause(now: float) -> None
    progress() -> None
    resume(now: float) -> None
    take_progress(now: float) -> bool
    waited_by(now: float) -> float
class Died(stage: str, id: str, kind: str, reason: str)
class Embedding(model: str | None = None)
class Hit(
    key: Key,
    score: float,
    scores: Mapping[str, float],
    values: Mapping[str, Plain],
)
class Hits(
    found: Sequence[Hit],
    asked: int,
    missing: Sequence[str],
    generations: Mapping[str, int],
)
    complete: bool
    shards: str
class Index(
    name: str,
    models: Mapping[str, type[Message]],
    key: str,
    vector: str,
    filters: tuple[str, ...],
    shards: int,
    parameters: Parameters,
    app: object = None,
)
    async search(
        vector: Any,
        k: int = 10,
        *,
        where: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | None = None,
        generations: Mapping[str, int] | None = None,
        timeout: float = 5.0,
    ) -> Hits
class Input()
class Job(jobs: Jobs, state: State, codec: Codec, *, replayed: bool = False)
    async cancel() -> JobStatus
    endpoint: str
    errors() -> AsyncIterator[JobRow]
    facts() -> dict[str, Any]
    id: str
    lines() -> AsyncIterator[dict[str, Any]]
    progress: JobStatus
    results() -> AsyncIterator[JobRow]
    async retry_failed() -> JobStatus
    async status() -> JobStatus
    text(*, errors: bool = False, after: int = 0) -> AsyncIterator[bytes]
    async wait() -> JobStatus
class JobRow(
    row: int,
    custom_id: str,
    status: Literal['succeeded', 'partial', 'failed'],
    answers: tuple[Message, ...],
    errors: tuple[Failure, ...],
)
class JobStatus(
    status: Status,
    stopping: Stop | None,
    rows: int,
    succeeded: int,
    partial: int,
    failed: int,
)
    done: int
class Label(model: str | None = None)
class Message, keywords of the class: (
    *,
    subject: str | None = None,
    key: str | None = None,
    ordered: bool = False,
    foreign_ids: bool = True,
    wire: Wire = 'json',
    table: str | None = None,
    order_by: tuple[str, ...] | str = (),
    shared: bool = False,
    keep: float | str | None = None,
    pack: bool = True,
    **config: Unpack[StructKeywords],
)
class Model(
    name: str,
    *,
    version: str | None = None,
    alias: str | None = None,
    inputs: Mapping[str, Tensor] | None = None,
    timeout: float | None = None,
    priority: Priority = 'live',
    max_batch: int | None = None,
    pad: Mapping[str, bool | float | str | bytes] | None = None,
)
    alias: str | None
    name: str
    stream(**inputs: Array) -> AsyncGenerator[Answer]
    version: str | None
class MqinferError(Exception)
class Reject(MqinferError)
class Rejected(reason: str)
class Request(requests: Requests, state: State, codec: Codec, *, replayed: bool = False)
    answers: tuple[A, ...]
    async cancel() -> bool
    created: float
    deadline: float
    done: bool
    endpoint: str
    errors: tuple[RequestFailed, ...]
    events(*, after: int = 0) -> AsyncGenerator[RequestEvent[A]]
    expires: float
    async facts() -> dict[str, Any]
    id: str
    models: dict[str, str]
    async progress() -> tuple[int, int]
    async refresh() -> Request[A]
    async result(wait: float | None = None) -> tuple[A, ...]
    status: Status
    async wait(seconds: float | None = None) -> Request[A]
class RequestEvent(
    kind: Literal['progress', 'answer', 'end'],
    number: int,
    settled: int = 0,
    open: int = 0,
    answer: A | None = None,
)
class Retry(
    reason: str = 'the handler asked for a retry',
    *,
    after: float | str | None = None,
)
class Row(Message)
class Settings(
    *,
    nats_url: str = 'nats://127.0.0.1:4222',
    nats_creds: str | None = None,
    nats_nkey: str | None = None,
    nats_user: str | None = None,
    nats_password: str | None = None,
    nats_token: str | None = None,
    nats_tls_ca: str | None = None,
    nats_tls_cert: str | None = None,
    nats_tls_key: str | None = None,
    nats_domain: str | None = None,
    nats_inbox_prefix: str = '_INBOX',
    triton_url: str = '127.0.0.1:8001',
    triton_tls_ca: str | None = None,
    triton_tls_cert: str | None = None,
    triton_tls_key: str | None = None,
    triton_headers: str | None = None,
    clickhouse_url: str = 'http://default@127.0.0.1:8123/default',
    clickhouse_tls_ca: str | None = None,
    clickhouse_tls_cert: str | None = None,
    clickhouse_tls_key: str | None = None,
    clickhouse_cluster: str | None = None,
    clickhouse_quorum: str = '1',
    clickhouse_timeout: float = 60.0,
    blobs: str = '.mqinfer/blobs',
    blob_cache: str | None = None,
    blob_timeout: float = 30.0,
    request_secret: str | None = None,
    console_token: str | None = None,
    inline_blob_bytes: int = 65536,
    max_pixels: int = 100000000,
    max_image_bytes: int = 268435456,
    grace: float = 25.0,
    stack_password: str | None = None,
    log_level: str = 'info',
    log_format: str = 'auto',
    loop: str = 'auto',
    inference: str = 'auto',
    servers: str = 'auto',
)
    blob_cache_bounds: tuple[str, int] | None
    clickhouse_servers: list[str]
    describe() -> list[SettingInfo]
    load(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings
    nats_servers: list[str]
class Snooze(reason: str = 'not yet', *, after: float | str)
class State, keywords of the class: (
    *,
    name: str | None = None,
    ttl: float | str | None = None,
    **config: Unpack[StructKeywords],
)
class Tensor(
    dtype: str,
    shape: tuple[int, ...],
    ge: float | None = None,
    le: float | None = None,
    one_of: tuple[str | int, ...] = (),
    description: str = '',
)
class Tick(at: datetime.datetime)
    late: float
class Worker(
    app: App,
    *,
    stages: Sequence[str] | None = None,
    settings: Settings | None = None,
    drain: bool = False,
    run: str | None = None,
    wait: bool = True,
)
    blocked(seconds: float) -> str | None
    not_ready() -> list[str]
    async reach() -> None
    async run() -> None
    stop() -> None
    stuck() -> str | None
connect(app: App, settings: Settings | None = None) -> AbstractAsyncContextManager[Client]

mqinfer.errors

class BadImage(Reject)
class BadRows(text: str, *, row: int | None = None, column: str | None = None)
class BadTensor(Reject)
class BlobError(MqinferError)
class BlobNotFound(BlobError)
class BlobPathError(BlobError, Reject)
class BlobTooLarge(BlobError, Reject)
class ConfigurationError(MqinferError)
class ConflictError(ConfigurationError)
class ConnectionClosed(Unavailable)
class DecodeError(Reject)
class EncodeError(MqinferError)
class HandlerHangs(MqinferError)
class HandlerTimeout(MqinferError)
class JobUnknown(RequestError)
class ModelError(MqinferError)
class ModelRejected(ModelError, Reject)
class ModelTimeout(MqinferError)
class ModelUnavailable(Unavailable)
class MqinferError(Exception)
class NotConnected(MqinferError)
class PayloadTooLarge(PublishError, Reject)
class PermissionDenied(MqinferError)
class PublishError(MqinferError)
class PublishTimeout(PublishError)
class Reject(MqinferError)
class RequestCanceled(RequestError)
class RequestConflict(RequestError)
class RequestError(MqinferError)
class RequestExpired(RequestError)
class RequestFailed(text: str, *, errors: Sequence[RequestFailed] = (), letter: str = '')
class RequestInvalid(RequestFailed)
class RequestPending(RequestError, TimeoutError)
class RequestRejected(RequestFailed)
class RequestUnknown(RequestError)
class Retry(
    reason: str = 'the handler asked for a retry',
    *,
    after: float | str | None = None,
)
class SearchError(MqinferError, ValueError)
class Snooze(reason: str = 'not yet', *, after: float | str)
class SnoozedTooLong(MqinferError)
class StateChanged(Unavailable)
class StateError(MqinferError)
class StateTooLarge(StateError, Reject)
class TableError(MqinferError)
class Unavailable(MqinferError)
class WiringError(ConfigurationError)
class WorkerKilled(MqinferError)

mqinfer.testing

class DeadLetter(stored: Stored)
    subject: str
class FakeModels(
    models: Mapping[str, Answering] | None = None,
    *,
    aliases: Mapping[str, str] | None = None,
)
    calls(model: str | None = None) -> list[ModelCall]
    delay(model: str, seconds: float) -> None
    fail(model: str, error: Exception | str, *, times: int = 1) -> None
class Harness(app: App, settings: Settings)
    async dead() -> list[DeadLetter]
    async drain(*stages: str) -> None
    async lag(name: str) -> int
    async messages(kind: type[_M]) -> list[_M]
    async publish(*messages: Message, ids: Sequence[str] | None = None) -> list[str]
    async publish_bytes(subject: str, payload: bytes, headers: dict[str, str] | None = None) -> None
    async state(stage: str, key: object) -> State | None
    async stored(stream: str | None = None, subject: str = '>') -> list[Stored]
    async tick(stage: str, at: datetime.datetime | None = None) -> str
    async timers(stage: str | None = None) -> list[Waiting]
    worker(*stages: str) -> AsyncIterator[Worker]
class ModelCall(
    model: str,
    version: str,
    inputs: Mapping[str, Array],
    error: Exception | None = None,
)
nats_only(folder: Path, **stack_settings: Any) -> AsyncIterator[Settings]
async until(
    condition: Callable[[], Awaitable[_T]],
    what: str = 'the state',
    timeout: float = 60.0,
) -> _T
async until(condition: Callable[[], _T], what: str = 'the state', timeout: float = 60.0) -> _T

mqinfer.stack

class ClickHouseServer(
    directory: Path,
    *,
    log: Path,
    port: int = 0,
    user: str = 'default',
    password: str = '',
)
    check() -> None
    command() -> list[str]
    environment() -> Mapping[str, str]
    ports() -> Mapping[int, tuple[str, str]]
    prepare() -> None
    async probe() -> bool
    url: str
class InferenceServer(
    directory: Path,
    *,
    log: Path,
    models: Path | None = None,
    http_port: int | None = None,
    grpc_port: int = 0,
    metrics_port: int | None = None,
    model_control: ModelControl = 'poll',
    exit_timeout: int = 2,
    extra_arguments: tuple[str, ...] = (),
)
    check() -> None
    command() -> list[str]
    environment() -> Mapping[str, str]
    leftovers() -> str
class ModelState(name: str, version: str, state: str, reason: str)
class NatsServer(
    directory: Path,
    *,
    log: Path,
    port: int = 0,
    monitor_port: int | None = None,
    max_payload: int = 8388608,
    max_file_store: int | None = None,
    server_name: str = 'mqinfer',
    domain: str = '',
    extra_config: str = '',
    scheme: str = 'nats',
    password: str = '',
)
    check() -> None
    command() -> list[str]
    config_file: Path
    ports() -> Mapping[int, tuple[str, str]]
    prepare() -> None
    async probe() -> bool
    url: str
class Server(log: Path)
    async bring_up(timeout: float = 60.0, say: Callable[[str], None] | None = None) -> None
    check() -> None
    command() -> list[str]
    died: bool
    ending() -> str
    environment() -> Mapping[str, str]
    kill() -> None
    label: str
    leftovers() -> str
    log_tail(lines: int = 12) -> str
    pid: int | None
    ports() -> Mapping[int, tuple[str, str]]
    prepare() -> None
    async probe() -> bool
    running: bool
    async start() -> None
    async stop(timeout: float = 10.0) -> None
    story() -> str
    async wait() -> int
    async wait_ready(timeout: float = 60.0) -> None
class Stack(
    settings: StackSettings | None = None,
    *,
    say: Callable[[str], None] | None = None,
)
    blobs: Path
    clickhouse: ClickHouseServer | None
    clickhouse_url: str
    environment() -> dict[str, str]
    kill() -> None
    nats: NatsServer | None
    nats_url: str
    servers: list[Server]
    async start() -> None
    async stop() -> None
    triton: TritonServer | None
    triton_http_url: str
    triton_url: str
    async watch() -> None
class StackConfigurationError(StackError, ConfigurationError)
class StackError(MqinferError)
class StackSettings(
    *,
    dir: Path = PosixPath('.mqinfer'),
    servers: ServersKind = 'embedded',
    nats: bool = True,
    triton: bool = True,
    clickhouse: bool = True,
    nats_port: int = 4222,
    nats_monitor_port: int | None = None,
    nats_max_payload: int = 8388608,
    nats_config: str = '',
    inference: InferenceKind = 'auto',
    triton_grpc_port: int = 8001,
    triton_http_port: int | None = None,
    triton_metrics_port: int | None = None,
    triton_control: ModelControl = 'poll',
    models: Path | None = None,
    clickhouse_port: int = 8123,
    clickhouse_password: str = '',
    password: str | None = None,
    restart: bool = False,
    ready_timeout: float = 90.0,
)
    free_ports(dir: Path, **changes: object) -> StackSettings
class TritonServer(
    directory: Path,
    *,
    log: Path,
    models: Path | None = None,
    http_port: int | None = None,
    grpc_port: int = 0,
    metrics_port: int | None = None,
    model_control: ModelControl = 'poll',
    exit_timeout: int = 2,
    extra_arguments: tuple[str, ...] = (),
)
    async ask(path: str, *, method: str = 'GET', timeout: float = 2.0) -> tuple[int, bytes]
    check() -> None
    command() -> list[str]
    environment() -> Mapping[str, str]
    http_url: str
    leftovers() -> str
    metrics_url: str
    async model_states() -> list[ModelState]
    ports() -> Mapping[int, tuple[str, str]]
    prepare() -> None
    async probe() -> bool
    async start() -> None
    async stop(timeout: float = 10.0) -> None
    url: str
async run_up(settings: StackSettings, *, out: Callable[[str], None]) -> int

mqinfer.catalog

app_of(path: Path | str) -> App
"""


class Bare(str):
    """An annotation that was kept as text, to be shown without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def signature(function: Any, kinds: Collection[Any] = KINDS) -> str:
    """`(name: type = default) -> type`, as it is written; a parameter a line if it is long.

    Args:
        function: or class.
        kinds: of the parameters to show.
    """
    found = inspect.signature(function)

    def bare(annotation: Any) -> Any:
        return Bare(annotation) if isinstance(annotation, str) else annotation

    parameters = [
        one.replace(annotation=bare(one.annotation))
        for name, one in found.parameters.items()
        if name not in ("self", "cls") and one.kind in kinds
    ]
    short = str(inspect.Signature(parameters, return_annotation=bare(found.return_annotation)))
    if len(short) < 84:
        return short
    shown = [str(one) for one in parameters]
    named = [place for place, one in enumerate(parameters) if one.kind is one.KEYWORD_ONLY]
    if named and not any(one.kind is one.VAR_POSITIONAL for one in parameters):
        shown.insert(named[0], "*")
    _, arrow, returned = short.rpartition(" -> ")
    end = f") -> {returned}" if arrow else ")"
    return "(\n" + "".join(f"    {one},\n" for one in shown) + end


def public(module: ModuleType) -> dict[str, Any]:
    """The public names of a module: those of `__all__`, or else those that it defines."""
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    return {name: getattr(module, name) for name in sorted(names)}


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class itself defines, or a part of it does."""
    parts = [base for base in kind.__mro__ if base in PARTS] if kind in WHOLES else []
    for name, value in [pair for part in (kind, *parts) for pair in vars(part).items()]:
        if not name.startswith("_") and (
            isinstance(value, (property, classmethod, staticmethod)) or inspect.isfunction(value)
        ):
            yield name, value


def described(name: str, value: Any) -> str:
    """A function or property, or each overload of it, or a class with its members."""
    if isinstance(value, property):
        assert value.fget is not None
        return f"{name}: {signature(value.fget).removeprefix('() -> ')}\n"
    if inspect.isclass(value):
        bases = f"({', '.join(base.__name__ for base in value.__bases__)})"
        if value in (Message, State):
            meta = MessageMeta if value is Message else StateMeta
            keywords = signature(meta.__new__, KEYWORDS).removesuffix(" -> Any")
            told = f"class {name}, keywords of the class: {keywords}\n"
        elif "__init__" not in vars(value) and issubclass(value, (BaseException, Row)):
            told = f"class {name}{bases}\n"
        else:
            told = f"class {name}{signature(value).removesuffix(' -> None')}\n"
        inner = "".join(described(*member) for member in sorted(members(value)))
        return told + textwrap.indent(inner, "    ")
    function = getattr(value, "__func__", value)
    word = "async " if inspect.iscoroutinefunction(function) else ""
    overloads = get_overloads(function) or [function]
    return "".join(f"{word}{name}{signature(one)}\n" for one in overloads)


def surface() -> str:
    """The whole list, a module after the other."""
    told = ""
    for module in MODULES:
        names = public(importlib.import_module(module)).items()
        told += f"\n{module}\n\n" + "".join(described(name, value) for name, value in names)
    return told


def test_a_name_is_there_when_it_is_asked_for_and_not_before() -> None:
    code = (
        "import mqinfer; given = set(dir(mqinfer)); "
        "print(set(mqinfer.__all__) <= given, 'App' in vars(mqinfer), mqinfer.App.__module__, "
        "'App' in vars(mqinfer))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["True", "False", "mqinfer.app", "True"]
    with pytest.raises(AttributeError, match="module 'mqinfer' has no attribute 'Ap'"):
        mqinfer.Ap  # type: ignore[attr-defined]  # noqa: B018


def test_the_surface_is_this() -> None:
    assert surface().splitlines() == SURFACE.splitlines()


@pytest.mark.parametrize("module", MODULES)
def test_each_public_name_says_its_job(module: str) -> None:
    assert importlib.import_module(module).__doc__
    silent = []
    for name, value in public(importlib.import_module(module)).items():
        # A dataclass without a docstring gets its signature for one.
        if not value.__doc__ or value.__doc__.startswith(f"{name}("):
            silent.append(name)
        if inspect.isclass(value):
            silent += [f"{name}.{one}" for one, member in members(value) if not member.__doc__]
    assert not silent


if __name__ == "__main__":
    print(surface(), end="")
