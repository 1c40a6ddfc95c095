"""Choice: which programs may be each server of a stack, by its settings; the best first."""

from __future__ import annotations

from typing import Any

from mqinfer.stack.clickhouse.server import ClickHouseServer
from mqinfer.stack.inferenceserver.server import InferenceServer
from mqinfer.stack.nats import NatsServer
from mqinfer.stack.onpath import ClickHouseOnPath, NatsOnPath, TritonOnPath
from mqinfer.stack.parts import Part
from mqinfer.stack.ports import free_port
from mqinfer.stack.settings import StackSettings
from mqinfer.stack.triton import TritonServer


def nats_part(settings: StackSettings, password: str) -> Part[NatsServer]:
    """NATS; whichever it is, its streams are in the same folder."""
    folder = settings.dir.absolute()
    how: dict[str, Any] = {
        "log": folder / "logs" / "nats.log",
        "port": _port(settings.nats_port),
        "monitor_port": _port(settings.nats_monitor_port),
        "max_payload": settings.nats_max_payload,
        "extra_config": settings.nats_config,
        "password": password,
    }
    return Part([kind(folder / "nats", **how) for kind in _kinds(settings, NatsOnPath, NatsServer)])


def triton_part(settings: StackSettings) -> Part[TritonServer]:
    """The server of models: Triton, or our own of its protocol."""
    folder = settings.dir.absolute()
    how: dict[str, Any] = {
        "log": folder / "logs" / "triton.log",
        "models": settings.models.absolute() if settings.models is not None else None,
        "http_port": _port(settings.triton_http_port),
        "grpc_port": _port(settings.triton_grpc_port),
        "metrics_port": _port(settings.triton_metrics_port),
        "model_control": settings.triton_control,
    }
    kinds = _kinds(settings, TritonOnPath, TritonServer)
    if settings.inference == "onnx":
        kinds = [InferenceServer]
    elif settings.inference == "auto" and settings.servers != "path":
        kinds.append(InferenceServer)
    return Part([kind(folder / "triton", **how) for kind in kinds])


def clickhouse_part(settings: StackSettings, password: str) -> Part[ClickHouseServer]:
    """ClickHouse; the two kinds cannot read each other's folders, so each has its own."""
    folder = settings.dir.absolute()
    how: dict[str, Any] = {
        "log": folder / "logs" / "clickhouse.log",
        "port": _port(settings.clickhouse_port),
        "password": settings.clickhouse_password or password,
    }
    folders = {ClickHouseOnPath: "clickhouse-server", ClickHouseServer: "clickhouse"}
    kinds = _kinds(settings, ClickHouseOnPath, ClickHouseServer)
    return Part([kind(folder / folders[kind], **how) for kind in kinds])


def left_behind(settings: StackSettings, server: ClickHouseServer) -> str | None:
    """Tell of the tables of earlier starts that `server` does not have, when it starts empty."""
    others = {"clickhouse": "embedded", "clickhouse-server": "path"}
    del others[server.directory.name]
    if server.directory.exists():
        return None
    for name, servers in others.items():
        folder = settings.dir.absolute() / name
        if folder.is_dir() and any(folder.iterdir()):
            return (
                f"{server.label} begins without tables: those of earlier starts are in {folder}, "
                f"and --servers {servers} has them"
            )
    return None


def _port(wanted: int | None) -> int | None:
    """A port that all candidates have in common; one that none asked for is each one's own."""
    return free_port() if wanted == 0 else wanted


def _kinds(settings: StackSettings, on_path: type[Any], embedded: type[Any]) -> list[type[Any]]:
    """The kinds of a server that the settings allow, the best first."""
    allowed = {"path": [on_path], "embedded": [embedded], "auto": [on_path, embedded]}
    return allowed[settings.servers]
