"""What can be chosen about the embedded stack."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mqinfer.stack.inferenceserver.server import InferenceKind
from mqinfer.stack.nats import DEFAULT_MAX_PAYLOAD
from mqinfer.stack.programs import ServersKind
from mqinfer.stack.triton import ModelControl


@dataclass(frozen=True, slots=True, kw_only=True)
class StackSettings:
    """What to start, where to keep it and on which ports. Port 0 takes a free one.

    Attributes:
        dir: Everything the servers keep is under this folder, for the next start too.
        servers: ``embedded`` ones; ``path``, those of the PATH; ``auto``, those of the PATH where
            they are installed and serve mqinfer, and else the embedded ones.
        nats: Start NATS; so ``triton`` and ``clickhouse``.
        nats_port: What clients connect to.
        nats_monitor_port: HTTP monitoring of NATS, which any web page can read; None opens none.
        nats_max_payload: The largest message in bytes.
        nats_config: Text added to the configuration of NATS.
        inference: What serves the models: ``triton``; ``onnx``, our own server of its protocol;
            ``auto``, Triton wherever it can be had.
        triton_grpc_port: What ``MQINFER_TRITON_URL`` names.
        triton_http_port: Triton's HTTP interface for other programs, and so for web pages; None
            has it answer the stack alone.
        triton_metrics_port: Triton's own metrics for Prometheus; None opens none.
        triton_control: ``poll`` takes up new versions by itself, ``explicit`` on request.
        models: The Triton model repository; None serves an empty one.
        clickhouse_port: The HTTP port.
        clickhouse_password: The password of the user ``default``; empty for ``password``.
        password: What NATS and ClickHouse want of whoever connects: None for nothing, a text, or
            an empty one to have it made up at the first start and kept under ``dir``.
        restart: Start a server that died again instead of ending the stack.
        ready_timeout: How long each server may take to become ready, in seconds.
    """

    dir: Path = Path(".mqinfer")
    servers: ServersKind = "embedded"
    nats: bool = True
    triton: bool = True
    clickhouse: bool = True
    nats_port: int = 4222
    nats_monitor_port: int | None = None
    nats_max_payload: int = DEFAULT_MAX_PAYLOAD
    nats_config: str = ""
    inference: InferenceKind = "auto"
    triton_grpc_port: int = 8001
    triton_http_port: int | None = None
    triton_metrics_port: int | None = None
    triton_control: ModelControl = "poll"
    models: Path | None = None
    clickhouse_port: int = 8123
    clickhouse_password: str = ""
    password: str | None = None
    restart: bool = False
    ready_timeout: float = 90.0

    @classmethod
    def free_ports(cls, dir: Path, **changes: object) -> StackSettings:  # noqa: A002
        """Give settings whose ports are all free ones, for tests and side-by-side stacks.

        Monitoring of NATS and Triton's metrics are open, too, which `mqinfer up` opens on request.
        """
        ports: dict[str, object] = {
            "nats_port": 0,
            "nats_monitor_port": 0,
            "triton_grpc_port": 0,
            "triton_metrics_port": 0,
            "clickhouse_port": 0,
        }
        return cls(dir=dir, **{**ports, **changes})  # type: ignore[arg-type]
