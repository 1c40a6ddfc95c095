"""Found: what was measured of a pipeline, and the sentence that says what bounds it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

_MOST = 0.5  # of the time: where it goes
_BUSY = 0.8  # of a core: a process that is bound by its event loop
_FULL = 0.9  # of the machine


class Measured(Struct, frozen=True):
    """One stage or sink alone, in one process; times in seconds.

    Attributes:
        name: of the stage, or `sink-<table>`.
        rate: messages a second at capacity; of a sink, rows, here and below.
        p50, p99: from the stream's time of a message to its acknowledgement, at half of it.
        each: messages of it for each message from outside.
        handled: messages in the measurement; 0: it had none.
        seconds: of the measurement.
        code: share of the handlers' time in which their own code ran.
        models: share that they waited for models.
        other: share that they waited for anything else: their turn, threads, other servers.
        publishing: share from their end to the acknowledgement.
        inserting: share of the measurement in which a sink inserted.
        waiting: share in which there was no message to handle.
        loop: of a core that the event loop took, the handlers' own code included.
        own: of a core that the handlers' own code took there.
        threads: of a core that threads took: decoding, plain `def` handlers, files.
        machine: of all cores that were busy, whoever it was.
        model: that was waited for most.
        batch: items in its average request.
        instances: requests that it runs at once; 0 is not known.
        max_batch: items of its largest request; 0 is not known.
        dead: messages that ended as dead letters.
        reason: of the first of them.
    """

    name: str
    rate: float = 0.0
    p50: float | None = None
    p99: float | None = None
    each: float = 0.0
    handled: int = 0
    seconds: float = 0.0
    code: float = 0.0
    models: float = 0.0
    other: float = 0.0
    publishing: float = 0.0
    inserting: float = 0.0
    waiting: float = 0.0
    loop: float = 0.0
    own: float = 0.0
    threads: float = 0.0
    machine: float = 0.0
    model: str = ""
    batch: float = 0.0
    instances: int = 0
    max_batch: int = 0
    dead: int = 0
    reason: str = ""

    @property
    def sink(self) -> bool:
        """Whether it is a table's."""
        return self.name.startswith("sink-")

    @property
    def roots(self) -> float:
        """Messages from outside a second that it could follow; infinite where it gets none."""
        return self.rate / self.each if self.each > 0 and self.rate > 0 else float("inf")


class Found(Struct, frozen=True):
    """What was measured.

    Attributes:
        app: its name.
        source: where the messages came from.
        cores: of this machine.
        rate: messages from outside a second, all stages in one process.
        seconds: of that measurement.
        stages: each alone.
        verdict: what bounds the pipeline, and what to do.
    """

    app: str
    source: str
    cores: int
    rate: float
    seconds: float
    stages: list[Measured]
    verdict: str


def verdict(stages: Sequence[Measured], rate: float, cores: int) -> str:
    """What bounds the pipeline and what to do, in two sentences or three."""
    able = [stage for stage in stages if stage.handled and stage.roots < float("inf")]
    if not able:
        dead = next((stage for stage in stages if stage.dead), None)
        why = f": {dead.name} failed with {dead.reason}" if dead is not None else ""
        return f"Nothing was handled{why}; give messages that it takes: --messages or --sample."
    least = min(able, key=lambda stage: stage.roots)
    text = (
        f"{least.name} bounds the pipeline: alone it follows {least.roots:,.0f} messages from "
        f"outside a second"
    )
    if rate > 0:
        text += f", all stages in one process {rate:,.0f}"
    if rate > 1.5 * least.roots:
        text += " (they disagree: others kept the machine busy for a while; measure again)"
    return f"{text}. {_cause(least, cores)}"


def _cause(stage: Measured, cores: int) -> str:
    processor = stage.loop + stage.threads
    ms = 1000 * processor / stage.rate
    more = (
        "More processes (--processes) share the work as long as cores are free; this machine "
        f"has {cores}."
    )
    if stage.waiting >= _MOST:
        return (
            "It waits for messages: the broker gives them out no faster; give NATS cores and a "
            "disk of its own, or several messages in one."
        )
    if stage.models >= _MOST:
        return _model(stage)
    if stage.sink and stage.inserting >= _MOST and stage.loop < _BUSY:
        return (
            f"It inserts {stage.inserting:.0%} of the time: ClickHouse takes no more; give it "
            "cores and a faster disk, or fewer and smaller columns."
        )
    if stage.loop >= _BUSY or processor >= _BUSY * cores or stage.machine >= _FULL:
        mine = "its own code" if stage.own >= stage.loop / 2 else "mqinfer's part of a message"
        if stage.threads > stage.loop:
            mine = "threads (decoding, a plain def, files)"
        crowded = (
            " All cores are busy, servers and neighbours included: more machines."
            if stage.machine >= _FULL
            else ""
        )
        return (
            f"The processor bounds it: {ms:.2g} ms a message, most of it {mine}. "
            f"{crowded.strip() or more}"
        )
    if stage.publishing >= _MOST:
        return (
            "It waits for the stream to store outputs: a faster disk for NATS, or fewer and larger "
            "outputs (rows of one input in one message)."
        )
    if stage.other >= _MOST:
        return (
            "Its handlers wait for something that is neither a model nor the stream: their turn, a "
            "thread, a server of their own. A higher concurrency= helps against waiting. " + more
        )
    return f"No single thing bounds it. {more}"


def _model(stage: Measured) -> str:
    text = (
        f"Its handlers wait {stage.models:.0%} of their time for model {stage.model}, in requests "
        f"of {stage.batch:.1f} items."
    )
    if stage.machine >= _FULL:
        return (
            f"{text} All cores are busy, the model's server included: a GPU or a machine of its "
            "own for Triton (MQINFER_TRITON_URL), or a smaller model."
        )
    if stage.max_batch and stage.batch < stage.max_batch / 2:
        return (
            f"{text} It takes {stage.max_batch}: more messages at once (concurrency=, "
            "max_in_flight=, more processes) fill them."
        )
    return (
        f"{text} More instances of it, a GPU, or a second Triton "
        "(MQINFER_TRITON_URL=a:8001,b:8001)."
    )
