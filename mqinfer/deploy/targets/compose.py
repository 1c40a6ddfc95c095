"""Compose: a container for each group of workers, one for the gateway and one for the console.

A group that scales does so inside of its container, by `--processes 1..8`: Compose cannot. The
servers are somebody else's, `compose/compose.yaml` for one; give both files to have one network,
and `observe.yaml` as well, which has its Prometheus and Grafana look at this app.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mqinfer.deploy.processes import METRICS_PORT, Plan
from mqinfer.deploy.targets import observed
from mqinfer.deploy.targets.local import processes_options
from mqinfer.deploy.targets.text import yaml

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.deploy.deployment import Held, Served, Triton, Workers

_DOCKERFILE = Path(__file__).with_name("Dockerfile")
_ASK = "import sys, urllib.request as u; sys.exit(u.urlopen(sys.argv[1], timeout=3).status != 200)"


def render(planned: Plan, app: App) -> dict[str, str]:
    """The files by name."""
    wanted = planned.deployment
    services: dict[str, Any] = {}
    for name, group in wanted.workers.items():
        listen = [f"--http={METRICS_PORT}", "--http-host=0.0.0.0"]
        command = [*planned.worker(group), *processes_options(group), *listen]
        # The first process's port; the others have the following ones.
        services[f"worker-{name}"] = _service(planned, command, METRICS_PORT, group, group.most)
    for name, held in wanted.indexes.items():
        listen = [f"--http={METRICS_PORT}", "--http-host=0.0.0.0"]
        for part in range(1, held.parts + 1):
            command = [*planned.index(name, held, part), *listen]
            one = _service(planned, command, METRICS_PORT, held, 1)
            one["labels"] = {"mqinfer.revision": planned.index_revision(name)}
            one.setdefault("deploy", {})["replicas"] = held.replicas
            services[f"index-{observed.slug(name)}-{part}"] = one
    if wanted.gateway is not None:
        command = planned.gateway(wanted.gateway, "0.0.0.0")
        services["gateway"] = _served(planned, command, wanted.gateway)
    if wanted.console is not None:
        command = planned.console(wanted.console, "0.0.0.0")
        services["console"] = _served(planned, command, wanted.console)
    if wanted.triton is not None:
        services[f"{planned.app}-triton"] = _triton(wanted.triton)
    made = {"name": f"mqinfer-{planned.app}", "services": services}
    return {
        "compose.yaml": yaml([made]),
        "observe.yaml": yaml([observed.override(planned)]),
        observed.SCRAPED: yaml([observed.scraped(planned)]),
        **observed.files(planned, app),
        "Dockerfile": _DOCKERFILE.read_text(),
    }


def _service(
    planned: Plan, command: list[str], port: int, of: Workers | Served | Held, processes: int
) -> dict[str, Any]:
    secrets = {name: f"${{{name}:?is a secret: set it in .env}}" for name in planned.secrets()}
    found: dict[str, Any] = {}
    if planned.deployment.image:
        found["image"] = planned.deployment.image
    else:
        found["build"] = {"context": "${APP_FOLDER:-.}", "dockerfile": "${PWD}/Dockerfile"}
    found |= {
        "command": command,
        "environment": {
            **{name: value.replace("$", "$$") for name, value in planned.environ().items()},
            **secrets,
        },
        # Servers of the host are reached by this name.
        "extra_hosts": ["host.docker.internal:host-gateway"],
        "stop_grace_period": f"{planned.grace}s",
        "healthcheck": {
            "test": ["CMD", "python", "-c", _ASK, f"http://127.0.0.1:{port}/healthz"],
            "interval": "10s",
            "timeout": "5s",
            "retries": 6,
            "start_period": "60s",
        },
        "restart": "unless-stopped",
        "labels": {"mqinfer.revision": planned.revision(_group(of))},
    }
    limits: dict[str, Any] = {}
    if of.cpu is not None:
        limits["cpus"] = f"{of.cpu * processes:g}"
    if of.memory is not None:
        limits["memory"] = f"{of.memory * processes}b"
    if limits:
        found["deploy"] = {"resources": {"limits": limits}}
    return found


def _group(of: Workers | Served | Held) -> Workers | None:
    from mqinfer.deploy.deployment import Workers

    return of if isinstance(of, Workers) else None


def _served(planned: Plan, command: list[str], served: Served) -> dict[str, Any]:
    found = _service(planned, command, served.port, served, 1)
    # On loopback alone: put what ends TLS in front of it for anything else.
    return found | {"ports": [f"127.0.0.1:{served.port}:{served.port}"]}


def _triton(triton: Triton) -> dict[str, Any]:
    folder = triton.models if triton.models.startswith(("/", ".")) else f"./{triton.models}"
    found: dict[str, Any] = {
        "image": triton.image,
        "command": triton_command(),
        "volumes": [f"{folder}:/models:ro"],
        "shm_size": "1gb",
        "healthcheck": {
            "test": ["CMD", "curl", "-fsS", "http://127.0.0.1:8000/v2/health/ready"],
            "interval": "5s",
            "timeout": "3s",
            "retries": 24,
            "start_period": "60s",
        },
        "restart": "unless-stopped",
        "deploy": {"replicas": triton.replicas},
    }
    if triton.gpus:
        gpu = {"driver": "nvidia", "count": triton.gpus, "capabilities": ["gpu"]}
        found["deploy"]["resources"] = {"reservations": {"devices": [gpu]}}
    return found


def triton_command() -> list[str]:
    """How an inference server is started whose models may be loaded anew."""
    return [
        "tritonserver",
        "--model-repository=/models",
        "--model-control-mode=explicit",
        "--load-model=*",
        "--exit-on-error=false",
        "--strict-readiness=false",
    ]
