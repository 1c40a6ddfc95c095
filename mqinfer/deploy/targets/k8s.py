"""Kubernetes: only what is ours, as plain files that `kubectl apply -k` takes.

A pod is a worker process, and KEDA says how many (`keda.py`). No `replicas` stands where a
ScaledObject owns the number. A change of settings or of a stage's declaration changes an annotation
of the pods, and so they are replaced, one by one. Servers have charts of their own; for that of
NATS there are values.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from mqinfer.deploy.processes import METRICS_PORT, Plan
from mqinfer.deploy.targets import observed
from mqinfer.deploy.targets.compose import triton_command
from mqinfer.deploy.targets.keda import scaled
from mqinfer.deploy.targets.text import yaml

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.deploy.deployment import Held, Served, Triton, Workers

Object = dict[str, Any]
MANAGED = "app.kubernetes.io/managed-by"
INSTANCE = "app.kubernetes.io/instance"
_COMPONENT = "app.kubernetes.io/component"
# Of all that is rendered, so that what a file has no more is deleted (`kubectl apply --prune`).
KINDS = (
    "core/v1/ConfigMap",
    "core/v1/Service",
    "apps/v1/Deployment",
    "policy/v1/PodDisruptionBudget",
    "keda.sh/v1alpha1/ScaledObject",
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
)


def render(planned: Plan, app: App) -> dict[str, str]:
    """The files by name."""
    wanted = planned.deployment
    objects: dict[str, list[Object]] = {"settings.yaml": [_settings(planned)]}
    for name, group in wanted.workers.items():
        objects[f"worker-{name}.yaml"] = _workers(planned, app, f"worker-{name}", group)
    for name, held in wanted.indexes.items():
        objects[f"index-{observed.slug(name)}.yaml"] = [
            one for part in range(1, held.parts + 1) for one in _held(planned, name, held, part)
        ]
    if wanted.gateway is not None:
        command = planned.gateway(wanted.gateway, "0.0.0.0")
        objects["gateway.yaml"] = _served(planned, "gateway", command, wanted.gateway, "/readyz")
    if wanted.console is not None:
        command = planned.console(wanted.console, "0.0.0.0")
        objects["console.yaml"] = _served(planned, "console", command, wanted.console, "/healthz")
    if wanted.triton is not None:
        objects["triton.yaml"] = _triton(planned, wanted.triton)
    if wanted.k8s.monitor:
        objects["monitor.yaml"] = [
            _monitor(planned),
            *observed.objects(planned, app, partial(_observed, planned)),
        ]
    kustomization: Object = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(objects),
    }
    if wanted.k8s.namespace:
        kustomization["namespace"] = wanted.k8s.namespace
    files = {name: yaml(made) for name, made in objects.items()}
    files["kustomization.yaml"] = yaml([kustomization])
    files["values/nats.yaml"] = yaml([_nats(planned)])
    return files


def _meta(planned: Plan, component: str) -> Object:
    labels = {"app.kubernetes.io/name": "mqinfer", MANAGED: "mqinfer", INSTANCE: planned.app}
    return {
        "name": f"{planned.app}-{component}",
        "labels": labels | {_COMPONENT: component},
    }


def _observed(planned: Plan, component: str) -> Object:
    """Metadata of what others look for by its labels."""
    found = _meta(planned, component)
    return found | {"labels": found["labels"] | planned.deployment.k8s.monitor_labels}


def _selector(planned: Plan, component: str) -> Object:
    return {INSTANCE: planned.app, _COMPONENT: component}


def _settings(planned: Plan) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _meta(planned, "settings"),
        "data": planned.environ() | {"MQINFER_LOG_FORMAT": "json"},
    }


# --- pods ---------------------------------------------------------------------------------------


def _container(
    planned: Plan, command: list[str], port: int, of: Workers | Served | Held, ready: str
) -> Object:
    secret = planned.deployment.k8s.secret
    found: Object = {
        "name": command[0],
        "image": planned.deployment.image,
        "args": command,
        "envFrom": [{"configMapRef": {"name": f"{planned.app}-settings"}}],
        "ports": [{"name": "http", "containerPort": port}],
        # Alive: leave it running. It is ready when it can work, and waits for servers until then.
        "livenessProbe": _probe("/healthz", period=10, failures=6),
        "readinessProbe": _probe(ready, period=5, failures=2),
        "startupProbe": _probe("/healthz", period=2, failures=60),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if planned.secrets():
        found["env"] = [
            {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name}}}
            for name in planned.secrets()
        ]
    requests: Object = {}
    if of.cpu is not None:
        requests["cpu"] = f"{of.cpu:g}"
    if of.memory is not None:
        requests["memory"] = str(of.memory)
    if requests:
        found["resources"] = {"requests": requests}
        if of.memory is not None:
            found["resources"]["limits"] = {"memory": str(of.memory)}
    return found


def _probe(path: str, *, period: int, failures: int, port: str = "http") -> Object:
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 3,
    }


def _pods(
    planned: Plan, component: str, container: Object, revision: str, replicas: int | None
) -> Object:
    selector = _selector(planned, component)
    labels = _meta(planned, component)["labels"]
    found: Object = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta(planned, component),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": selector},
            # A new one works before an old one is told to end.
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "template": {
                "metadata": {"labels": labels, "annotations": {"mqinfer/revision": revision}},
                "spec": {
                    "terminationGracePeriodSeconds": planned.grace,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [container],
                },
            },
        },
    }
    if replicas is None:
        del found["spec"]["replicas"]
    return found


def _budget(planned: Plan, component: str) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _meta(planned, component),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": _selector(planned, component)},
        },
    }


# --- what there is ------------------------------------------------------------------------------


def _workers(planned: Plan, app: App, component: str, group: Workers) -> list[Object]:
    listen = [f"--http={METRICS_PORT}", "--http-host=0.0.0.0"]
    command = [*planned.worker(group), *listen]
    container = _container(planned, command, METRICS_PORT, group, "/readyz")
    replicas = None if group.bounds.scales else group.least
    found = [_pods(planned, component, container, planned.revision(group), replicas)]
    if group.bounds.scales:
        found.append(scaled(planned, app, _meta(planned, component), group))
    return [*found, _budget(planned, component)]


def _held(planned: Plan, name: str, held: Held, part: int) -> list[Object]:
    """The replicas of one part of an index's shards."""
    component = f"index-{observed.slug(name)}-{part}"
    listen = [f"--http={METRICS_PORT}", "--http-host=0.0.0.0"]
    command = [*planned.index(name, held, part), *listen]
    container = _container(planned, command, METRICS_PORT, held, "/readyz")
    revision = planned.index_revision(name)
    return [
        _pods(planned, component, container, revision, held.replicas),
        _budget(planned, component),
    ]


def _served(
    planned: Plan, component: str, command: list[str], served: Served, ready: str
) -> list[Object]:
    container = _container(planned, command, served.port, served, ready)
    return [
        _pods(planned, component, container, planned.revision(), served.replicas),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _meta(planned, component),
            "spec": {
                "selector": _selector(planned, component),
                "ports": [{"name": "http", "port": served.port, "targetPort": "http"}],
            },
        },
        _budget(planned, component),
    ]


def _triton(planned: Plan, triton: Triton) -> list[Object]:
    ports = {"rest": 8000, "grpc": 8001, "metrics": 8002}
    container: Object = {
        "name": "triton",
        "image": triton.image,
        "args": triton_command(),
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
        "readinessProbe": _probe("/v2/health/ready", period=5, failures=3, port="rest"),
        "livenessProbe": _probe("/v2/health/live", period=10, failures=6, port="rest"),
        "startupProbe": _probe("/v2/health/live", period=5, failures=60, port="rest"),
        "volumeMounts": [
            {"name": "models", "mountPath": "/models", "readOnly": True},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }
    if triton.gpus:
        container["resources"] = {"limits": {"nvidia.com/gpu": str(triton.gpus)}}
    pods = _pods(planned, "triton", container, planned.deployment.image, triton.replicas)
    template = pods["spec"]["template"]
    del template["metadata"]["annotations"], template["spec"]["securityContext"]  # not our image
    template["spec"]["volumes"] = [
        {"name": "models", "persistentVolumeClaim": {"claimName": triton.models}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
    ]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta(planned, "triton"),
        # Headless: its name has the address of each, over which workers spread their calls.
        "spec": {
            "clusterIP": "None",
            "selector": _selector(planned, "triton"),
            "ports": [{"name": name, "port": port} for name, port in ports.items()],
        },
    }
    return [pods, service, _budget(planned, "triton")]


def _monitor(planned: Plan) -> Object:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": _observed(planned, "monitor"),
        "spec": {
            "selector": {"matchLabels": {INSTANCE: planned.app, MANAGED: "mqinfer"}},
            # Of ours, and of Triton, whose port has this name.
            "podMetricsEndpoints": [
                {"port": port, "path": "/metrics", "interval": "15s"}
                for port in ("http", "metrics")
            ],
        },
    }


def _nats(planned: Plan) -> Object:
    """For NATS's own chart: what the app needs of it."""
    replicas = planned.declared.replicas
    return {
        "config": {
            "cluster": {"enabled": replicas > 1, "replicas": replicas},
            "jetstream": {"enabled": True, "fileStore": {"enabled": True, "pvc": {"size": "20Gi"}}},
            # Which KEDA asks.
            "monitor": {"enabled": True, "port": 8222},
            # A node that is gone is noticed in seconds, not in four minutes (docs/hosts.md).
            "merge": {"ping_interval": "5s", "ping_max": 2},
        }
    }
