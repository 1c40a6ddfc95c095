"""Observed: the board, the alert rules and what is scraped, of an app as it is deployed. Pure.

Files for who has a Grafana and a Prometheus of his own, for those of `compose/`, and objects for
the operator of Prometheus and the chart of Grafana.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mqinfer import plan
from mqinfer.deploy.processes import METRICS_PORT
from mqinfer.operate.alerts import Group, Running, rules
from mqinfer.operate.boards import board

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.deploy.processes import Plan

RULES, SCRAPED = "prometheus/rules.yml", "prometheus/scrape.yml"


def running(planned: Plan, app: App) -> Running:
    """How the app is deployed, for its board and its rules."""
    shown = {task.name for task in plan.tasks(app) if task.stage or task.row}
    groups = []
    for name, one in planned.deployment.workers.items():
        stages = tuple(stage for stage in one.stages if stage in shown)
        if stages:
            groups.append(Group(name, stages, one.least, one.most, one.target))
    replicas = {name: one.replicas for name, one in planned.deployment.indexes.items()}
    return Running(tuple(groups), replicas)


def files(planned: Plan, app: App) -> dict[str, str]:
    """A board that Grafana imports, and rules for Prometheus (JSON is YAML)."""
    return {
        f"grafana/{planned.app}.json": _json(board(app, running(planned, app))),
        RULES: _json(_rules(planned, app)),
    }


def _rules(planned: Plan, app: App) -> dict[str, Any]:
    return rules(app, planned.deployment.alerts, running(planned, app))


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


# --- compose --------------------------------------------------------------------------------------


def scraped(planned: Plan) -> dict[str, Any]:
    """What Prometheus asks, by the names of Compose's services."""
    wanted = planned.deployment
    workers = [
        f"worker-{name}:{METRICS_PORT + number}"
        for name, group in wanted.workers.items()
        for number in range(group.most)  # those that are not there now are not reached
    ]
    served = {"gateway": wanted.gateway, "console": wanted.console}
    others = [f"{name}:{one.port}" for name, one in served.items() if one is not None]
    jobs: list[dict[str, Any]] = [
        {"job_name": planned.app, "static_configs": [{"targets": workers + others}]}
    ]
    # Of a name with several containers, each.
    several = [
        (f"index-{slug(name)}-{part}", METRICS_PORT)
        for name, held in wanted.indexes.items()
        for part in range(1, held.parts + 1)
    ]
    if wanted.triton is not None:
        several.append((f"{planned.app}-triton", 8002))
    if several:
        found = [{"names": [name], "type": "A", "port": port} for name, port in several]
        jobs.append({"job_name": f"{planned.app}-replicas", "dns_sd_configs": found})
    return {"scrape_configs": jobs}


def override(planned: Plan) -> dict[str, Any]:
    """What Prometheus and Grafana of `compose/compose.yaml` are given, as an override of it."""
    folder = "${DEPLOYED:?the folder that this file is in, as a whole path}"

    def mounted(source: str, target: str) -> dict[str, Any]:
        path = f"{folder}/{source}"
        return {"type": "bind", "source": path, "target": target, "read_only": True}

    return {
        "services": {
            "prometheus": {
                "volumes": [mounted("prometheus", f"/etc/prometheus/apps/{planned.app}")]
            },
            "grafana": {"volumes": [mounted("grafana", f"/etc/mqinfer/boards/{planned.app}")]},
        }
    }


# --- Kubernetes -----------------------------------------------------------------------------------


def objects(planned: Plan, app: App, meta: Any) -> list[dict[str, Any]]:
    """The rules, for the operator of Prometheus; the board, for the sidecar of Grafana's chart.

    Args:
        planned: what is deployed.
        app: the app.
        meta: makes the metadata of an object from its component's name.
    """
    rule, shown = meta("rules"), meta("board")
    shown["labels"] = {**shown["labels"], "grafana_dashboard": "1"}
    return [
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": rule,
            "spec": _rules(planned, app),
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": shown,
            "data": {f"{planned.app}.json": _json(board(app, running(planned, app)))},
        },
    ]


def slug(name: str) -> str:
    """A name as names of services and objects are."""
    return name.lower().replace("_", "-")
