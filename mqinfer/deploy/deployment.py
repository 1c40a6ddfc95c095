"""Deployment: what a `deploy.toml` says, as plain values. Inert."""

from __future__ import annotations

import msgspec

from mqinfer.operate.alerts import Thresholds
from mqinfer.supervise.scaling import Bounds


class Workers(msgspec.Struct, frozen=True, kw_only=True):
    """A group of worker processes.

    Attributes:
        stages: stages and sinks that they run, in the app's order.
        least: processes (pods).
        most: the same; where it is more than `least`, they are as many as the backlog needs.
        target: seconds in which what waits should be done.
        backlog: messages a process that may wait before another is started.
        cooldown: seconds before one ends that is not needed.
        max_messages: after which a process ends in order and another begins; None is never.
        max_memory: bytes, likewise.
        cpu: processors that each asks for, where there is somebody to ask.
        memory: bytes that each may have, likewise.
    """

    stages: tuple[str, ...]
    least: int = 1
    most: int = 1
    target: float = 30.0
    backlog: int = 1000
    cooldown: float = 60.0
    max_messages: int | None = None
    max_memory: int | None = None
    cpu: float | None = None
    memory: int | None = None

    @property
    def bounds(self) -> Bounds:
        """For whoever scales them."""
        return Bounds(self.least, self.most, self.target, self.backlog, self.cooldown)


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """The processes that hold the shards of an index.

    Attributes:
        parts: that the shards are spread over, a process each.
        replicas: processes of each part; each search asks one of them.
        shards: of generations that are built from now on; None is what the app declares.
        dtype: of their vectors, likewise.
        weights: of its models; those that are not named keep theirs.
        snapshot_every: seconds between snapshots.
        cpu: processors that each asks for, where there is somebody to ask.
        memory: bytes that each may have, likewise.
    """

    parts: int = 1
    replicas: int = 1
    shards: int | None = None
    dtype: str | None = None
    weights: dict[str, float] = {}
    snapshot_every: float = 300.0
    cpu: float | None = None
    memory: int | None = None


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway, or a console.

    Attributes:
        port: that it listens on.
        replicas: how many; only where each has an address of its own.
        options: more of its command line.
        cpu: processors that each asks for.
        memory: bytes that each may have.
    """

    port: int
    replicas: int = 1
    options: tuple[str, ...] = ()
    cpu: float | None = None
    memory: int | None = None


class Triton(msgspec.Struct, frozen=True, kw_only=True):
    """Inference servers that are deployed with the app.

    Attributes:
        image: of the container.
        replicas: how many.
        gpus: that each asks for.
        models: name of the volume claim (k8s), or the folder (compose), with the model repository.
    """

    image: str = "nvcr.io/nvidia/tritonserver:24.10-py3"
    replicas: int = 1
    gpus: int = 0
    models: str = "triton_models"


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """What only Kubernetes is told.

    Attributes:
        namespace: of all objects; "" is the one that kubectl is set to.
        secret: that holds the secret settings, under the names of their variables.
        nats_monitor: host:port of NATS's monitoring endpoint, which KEDA asks for backlogs.
        nats_account: the account that the app's streams are in.
        monitor: a PodMonitor, alert rules and a board are made, for the operator of Prometheus and
            the chart of Grafana.
        monitor_labels: of these, where an operator looks at some objects alone.
        prometheus: address of Prometheus, which KEDA asks whether more pods would help; "" is none.
    """

    namespace: str = ""
    secret: str = "mqinfer"
    nats_monitor: str = "nats-headless:8222"
    nats_account: str = "$G"
    monitor: bool = True
    monitor_labels: dict[str, str] = {}
    prometheus: str = ""


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """All that a file says.

    Attributes:
        workers: groups by name; together they run every stage and sink once.
        image: of the container that has mqinfer and the app.
        settings: values of settings, by name.
        secrets: names of settings whose values are not in the file.
        gateway: None is none.
        console: None is none.
        models: the version that each alias names, by `model@alias`.
        triton: None: somebody else runs it.
        k8s: what Kubernetes is told.
        indexes: who holds the shards of each index.
        alerts: when somebody is told.
    """

    workers: dict[str, Workers]
    image: str = ""
    settings: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    gateway: Served | None = None
    console: Served | None = None
    models: dict[str, str] = {}
    triton: Triton | None = None
    k8s: Cluster = Cluster()
    indexes: dict[str, Held] = {}
    alerts: Thresholds = Thresholds()
