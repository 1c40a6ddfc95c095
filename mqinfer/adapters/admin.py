"""Streams and consumers over JetStream's JSON API, as plain dictionaries.

nats-py's typed configuration drops fields it does not know, so that an update through it can erase
what an operator set. Here an update is the server's own configuration with our fields on top.
"""

from __future__ import annotations

import base64
import datetime
import re
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

import structlog

from mqinfer.adapters import leader
from mqinfer.errors import ConflictError, MqinferError, PermissionDenied, Unavailable
from mqinfer.flow.publishing import Publishes
from mqinfer.identity import parse_header_block
from mqinfer.ports import ConsumerSpec, ConsumerState, CopyOf, StreamSpec
from mqinfer.streams import Stored

log = structlog.get_logger("mqinfer.jetstream")

NOT_FOUND = {10014, 10059}  # consumer, stream
EXISTS = {10058, 10148, 10013}  # stream or consumer name in use with another configuration
NO_MESSAGE = 10037
# Where a consumer began: fixed when it is made.
BEGINNING = ("deliver_policy", "opt_start_seq", "opt_start_time")
COUNTER_AGE = 10.0  # seconds after which a counting consumer that was left behind ends
NANO = 1_000_000_000
_PARTITIONS = re.compile(r"partition\((\d+)")


class Api(Protocol):
    """Asks JetStream's API one question."""

    async def api(self, subject: str, body: Any = None, timeout: float = 5.0) -> dict[str, Any]:
        """The answer; raises Unavailable."""


class Connection(Publishes, Protocol):
    """What a bucket of keys or of objects needs of the connection; `JetStream` has it."""

    @property
    def client(self) -> Api:
        """Asks JetStream's API."""

    @property
    def max_payload(self) -> int:
        """Of the server."""


class JetStreamError(MqinferError):
    """An error answer of JetStream's API."""

    def __init__(self, error: dict[str, Any], what: str):
        self.code = int(error.get("err_code", 0))
        super().__init__(f"{what}: {error.get('description', error)} ({self.code})")


async def ask(api: Api, subject: str, body: Any, what: str) -> dict[str, Any]:
    """One question; an error answer is raised.

    Raises:
        JetStreamError: JetStream says no.
        Unavailable: it does not answer, or has no leader now.
    """
    answer = await api.api(f"$JS.API.{subject}", body)
    error = answer.get("error")
    if error:
        if error.get("code") == 503 or error.get("err_code") == 10008:
            raise Unavailable(f"{what}: {error.get('description')}")
        if error.get("code") in (401, 403):
            raise PermissionDenied(f"{what}: {error.get('description')}")
        raise JetStreamError(error, what)
    return answer


async def stream_info(
    api: Api, name: str, body: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """Configuration and state of a stream as its leader has them, or None if there is none.

    Raises:
        Unavailable: JetStream does not answer, or none that leads the stream does.
    """
    what = f"stream {name}"
    try:
        return await leader.told(lambda: ask(api, f"STREAM.INFO.{name}", body, what), what)
    except JetStreamError as error:
        if error.code in NOT_FOUND:
            return None
        raise


async def stream_names(api: Api) -> list[str]:
    """The streams of the account."""
    found: list[str] = []
    while True:
        answer = await ask(api, "STREAM.NAMES", {"offset": len(found)}, "the list of streams")
        page = answer.get("streams") or []
        found += page
        if not page or len(found) >= answer.get("total", 0):
            return found


async def delete_stream(api: Api, name: str) -> None:
    """Delete a stream with all that lies in it, if it is there."""
    try:
        await ask(api, f"STREAM.DELETE.{name}", None, f"stream {name}")
    except JetStreamError as error:
        if error.code not in NOT_FOUND:
            raise


async def subjects(api: Api, stream: str, subject: str = ">") -> dict[str, int]:
    """How many messages the stream holds under each subject; none if there is no stream."""
    counts: dict[str, int] = {}
    while True:
        body = {"subjects_filter": subject, "offset": len(counts)}
        info = await stream_info(api, stream, body)
        if info is None:
            return {}
        page = info["state"].get("subjects") or {}
        counts.update(page)
        if not page or len(counts) >= info.get("total", 0):
            return counts


def stream_config(spec: StreamSpec) -> dict[str, Any]:
    """What we want of a stream; limits retention, so that what was acknowledged stays."""
    config: dict[str, Any] = {
        "name": spec.name,
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_age": int((spec.max_age or 0) * NANO),
        "max_bytes": spec.max_bytes or -1,
        "num_replicas": spec.replicas,
        "duplicate_window": int(spec.duplicate_window * NANO),
        "allow_direct": True,
    }
    if spec.subjects:
        config["subjects"] = list(spec.subjects)
    if spec.schedules:  # such a stream must not refuse what is new
        config |= {"allow_msg_schedules": True, "allow_msg_ttl": True, "allow_rollup_hdrs": True}
        config["discard"] = "old"
    if spec.ttls:
        config["allow_msg_ttl"] = True
    if spec.pushed is not None:
        config["republish"] = dict(zip(("src", "dest"), spec.pushed, strict=True))
    if spec.copies is not None:
        # A source each: of one that takes two subjects the server looks through all subjects of the
        # stream for every message that it copies (nats-server 2.12).
        config["sources"] = [
            {"name": spec.copies.stream, "subject_transforms": [transform]}
            for transform in _transforms(spec.copies)
        ]
    return config


def _transforms(copies: CopyOf) -> list[dict[str, str]]:
    return [{"src": taken, "dest": stored} for taken, stored in copies.transforms]


def _copies(spec: StreamSpec, has: Mapping[str, Any]) -> bool:
    """Whether a stream copies what `spec` wants: by a source each, or as before by one for all.

    A copy that is there keeps its way: with other sources JetStream would copy everything again.
    """
    assert spec.copies is not None
    together = {"name": spec.copies.stream, "subject_transforms": _transforms(spec.copies)}
    return has.get("sources") in (stream_config(spec)["sources"], [together])


def copy_conflict(spec: StreamSpec, has: Mapping[str, Any]) -> str | None:
    """Why a stream that exists cannot be used as the copy that `spec` wants, or None."""
    wanted = stream_config(spec).get("sources")
    if wanted is None or spec.subjects or _copies(spec, has):
        return None
    found = [_PARTITIONS.findall(str(sources)) for sources in (has.get("sources"), wanted)]
    if all(found) and found[0] != found[1]:
        return (
            f"stream {spec.name} is cut into {found[0][0]} partitions, the app asks for "
            f"{found[1][0]}; another number would mix up the order of what is under way: keep "
            f"App(partitions={found[0][0]}), or give the message type another subject="
        )
    return (
        f"stream {spec.name} exists, and copies {has.get('sources')!r} instead of {wanted!r}: "
        "use another app name, or delete the stream"
    )


async def uncopied(api: Api, spec: StreamSpec) -> bool:
    """Whether there are messages that the copy does not have yet; see `Broker.uncopied`."""
    assert spec.copies is not None
    info = await stream_info(api, spec.name)
    copied = {
        transform["src"]: source.get("seq", 0)
        for source in (info or {}).get("sources") or []
        for transform in source.get("subject_transforms") or []
    }
    for subject, _ in spec.copies.transforms:
        if await newest(api, spec.copies.stream, subject) > copied.get(subject, 0):
            return True
    return False


async def newest(api: Api, stream: str, subject: str) -> int:
    """Where the newest message of a subject lies, as the stream's leader says; 0: nowhere."""
    found = await message(api, stream, {"last_by_subj": subject}, f"stream {stream}")
    return 0 if found is None else found.sequence


async def message(api: Api, stream: str, body: dict[str, Any], what: str) -> Stored | None:
    """A message as the stream's leader has it: a replica may not yet have what was just stored."""
    try:
        found = await ask(api, f"STREAM.MSG.GET.{stream}", body, what)
    except JetStreamError as error:
        if error.code not in {NO_MESSAGE, *NOT_FOUND}:
            raise
        return None
    one = found["message"]
    return Stored(
        stream=stream,
        subject=one["subject"],
        sequence=int(one["seq"]),
        time=datetime.datetime.fromisoformat(one["time"]),
        headers=parse_header_block(base64.b64decode(one.get("hdrs") or "")),
        data=base64.b64decode(one.get("data") or ""),
    )


async def ensure_stream(api: Api, spec: StreamSpec) -> None:
    """Create a stream, or bring it to `spec`; see `Broker.ensure_stream`."""
    wanted = stream_config(spec)
    info = await stream_info(api, spec.name)
    if info is None:
        try:
            await ask(api, f"STREAM.CREATE.{spec.name}", wanted, f"stream {spec.name}")
        except JetStreamError as error:
            info = await stream_info(api, spec.name)  # another worker was quicker
            if info is None:
                raise ConflictError(_stream_hint(error, spec)) from None
        else:
            log.info("stream created", stream=spec.name, subjects=list(spec.subjects))
            return
    has = info["config"]
    if spec.subjects and "sources" in wanted:  # beside what an operator may have it copy
        others = [one for one in has.get("sources") or [] if one not in wanted["sources"]]
        wanted["sources"] = others + wanted["sources"]
    elif spec.copies is not None and _copies(spec, has):
        wanted["sources"] = has["sources"]
    differs = {key: value for key, value in wanted.items() if has.get(key) != value}
    if not differs:
        return
    if conflict := copy_conflict(spec, has):
        raise ConflictError(conflict)
    for fixed in ("retention", "storage"):
        if fixed in differs:
            raise ConflictError(
                f"stream {spec.name} exists with {fixed}={has.get(fixed)!r}, mqinfer needs "
                f"{wanted[fixed]!r} and JetStream cannot change it: use another app name, or "
                "delete the stream"
            )
    try:
        await ask(api, f"STREAM.UPDATE.{spec.name}", {**has, **wanted}, f"stream {spec.name}")
    except JetStreamError as error:
        raise ConflictError(
            f"{_stream_hint(error, spec)} (to change: "
            + ", ".join(f"{key} {has.get(key)!r} -> {value!r}" for key, value in differs.items())
            + ")"
        ) from None
    log.warning(
        "stream changed",
        stream=spec.name,
        changes={key: (has.get(key), value) for key, value in differs.items()},
    )


def _stream_hint(error: JetStreamError, spec: StreamSpec) -> str:
    if error.code == 10065:
        return f"{error}: another stream holds a subject of {', '.join(spec.subjects)}"
    if error.code in (10047, 10023):
        return f"{error}: the server has not that much storage; lower the app's max_bytes"
    if error.code == 10074:
        return f"{error}: this server is alone; App(replicas=1), or NATS servers in a cluster"
    return str(error)


async def consumer_info(api: Api, stream: str, consumer: str) -> dict[str, Any] | None:
    """Configuration and state of a consumer, or None if there is none."""
    try:
        return await ask(
            api, f"CONSUMER.INFO.{stream}.{consumer}", None, f"consumer {consumer} of {stream}"
        )
    except JetStreamError as error:
        if error.code in NOT_FOUND:
            return None
        raise


async def consumers(api: Api, stream: str) -> list[dict[str, Any]]:
    """Configuration and state of every consumer of a stream; none if there is no stream."""
    found: list[dict[str, Any]] = []
    while True:
        body = {"offset": len(found)}
        try:
            answer = await ask(api, f"CONSUMER.LIST.{stream}", body, f"consumers of {stream}")
        except JetStreamError as error:
            if error.code in NOT_FOUND:
                return []
            raise
        page = answer.get("consumers") or []
        found += page
        if not page or len(found) >= answer.get("total", 0):
            return found


async def delete_consumer(api: Api, stream: str, consumer: str) -> None:
    """Delete a consumer, if it is there."""
    try:
        await ask(api, f"CONSUMER.DELETE.{stream}.{consumer}", None, f"consumer {consumer}")
    except JetStreamError as error:
        if error.code not in NOT_FOUND:
            raise


async def pending(api: Api, spec: ConsumerSpec) -> int:
    """What a consumer would begin with, counted by one that is made and deleted at once."""
    info = await stream_info(api, spec.stream)
    first = spec.start_sequence or 1
    if info is None or spec.start == "new" or info["state"]["last_seq"] < first:
        return 0  # a start behind the end would be taken for the end
    name = f"count-{uuid.uuid4().hex}"
    wanted = consumer_config(spec)
    config = {
        **{key: wanted[key] for key in BEGINNING if key in wanted},
        "name": name,
        "ack_policy": "none",
        "filter_subjects": list(spec.filters),
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": int(COUNTER_AGE * NANO),
    }
    body = {"stream_name": spec.stream, "config": config, "action": "create"}
    made = await ask(
        api, f"CONSUMER.CREATE.{spec.stream}.{name}", body, f"counting in {spec.stream}"
    )
    await delete_consumer(api, spec.stream, name)
    return int(made.get("num_pending", 0))


def consumer_config(spec: ConsumerSpec) -> dict[str, Any]:
    """What we want of a consumer: explicit acks, no server-side end of attempts."""
    config: dict[str, Any] = {
        "name": spec.name,
        "durable_name": spec.name,
        "ack_policy": "explicit",
        "ack_wait": int(spec.ack_wait * NANO),
        # Past a server-side limit a message is stuck in silence: the worker decides instead.
        "max_deliver": -1,
        "max_ack_pending": spec.max_ack_pending,
        "replay_policy": "instant",
    }
    if spec.reader is not None:
        del config["durable_name"]
        config |= {"inactive_threshold": int(spec.reader * NANO), "mem_storage": True}
        config["num_replicas"] = 1
    if len(spec.filters) == 1:
        config["filter_subject"] = spec.filters[0]
    else:
        config["filter_subjects"] = list(spec.filters)
    if spec.start_sequence is None:
        config["deliver_policy"] = "all"
        if spec.start == "new":
            config["deliver_policy"] = "new"
        elif spec.start is not None:
            config["deliver_policy"] = "by_start_time"
            config["opt_start_time"] = spec.start.isoformat()
    else:
        config["deliver_policy"] = "by_start_sequence"
        config["opt_start_seq"] = spec.start_sequence
    return config


async def ensure_consumer(api: Api, spec: ConsumerSpec) -> ConsumerState:
    """Create a consumer, or bring it to `spec`; see `Broker.ensure_consumer`."""
    wanted = consumer_config(spec)
    what = f"consumer {spec.name} of {spec.stream}"
    subject = f"CONSUMER.CREATE.{spec.stream}.{spec.name}"
    info = await consumer_info(api, spec.stream, spec.name)
    if info is None:
        body = {"stream_name": spec.stream, "config": wanted, "action": "create"}
        try:
            info = await ask(api, subject, body, what)
        except JetStreamError as error:
            if error.code not in EXISTS:
                raise ConflictError(str(error)) from None
            info = await consumer_info(api, spec.stream, spec.name)  # another was quicker
            if info is None:
                raise Unavailable(str(error)) from None
        else:
            log.info("consumer created", stream=spec.stream, consumer=spec.name)
    has = info["config"]
    if spec.start_sequence is None:
        # Where it began is history: one that was deleted in use begins where it had been.
        wanted = {key: value for key, value in wanted.items() if key not in BEGINNING}
    if spec.window_kept:
        del wanted["max_ack_pending"]
    differs = {key: value for key, value in wanted.items() if has.get(key) != value}
    if differs:
        config = {k: v for k, v in has.items() if k not in ("filter_subject", "filter_subjects")}
        body = {
            "stream_name": spec.stream,
            "config": {**config, **wanted},
            "action": "update",
        }
        try:
            info = await ask(api, subject, body, what)
        except JetStreamError as error:
            raise ConflictError(
                f"{error}: it exists with other settings ("
                + ", ".join(f"{key} {has.get(key)!r}, wanted {differs[key]!r}" for key in differs)
                + "); give the stage another name, or delete the consumer"
            ) from None
        log.info("consumer changed", consumer=spec.name, changes=sorted(differs))
    return consumer_state(info)


def consumer_state(info: dict[str, Any]) -> ConsumerState:
    """The numbers of a consumer info answer."""
    return ConsumerState(
        name=info["name"],
        waiting=info.get("num_pending", 0),
        unacknowledged=info.get("num_ack_pending", 0),
        redelivered=info.get("num_redelivered", 0),
        acknowledged_floor=info.get("ack_floor", {}).get("stream_seq", 0),
        delivered=info.get("delivered", {}).get("stream_seq", 0),
        deliveries=info.get("delivered", {}).get("consumer_seq", 0),
        requests=info.get("num_waiting", 0),
        max_ack_pending=info.get("config", {}).get("max_ack_pending", -1),
    )
