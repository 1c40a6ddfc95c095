"""KEDA: how many pods a group has, by what waits for it, and not against a gate. Pure.

KEDA takes a consumer's lag to be what waits and what was delivered and is not acknowledged, so a
group is not taken down while a batch is in its handlers. Of several triggers it would take the
largest: a formula adds them up. It knows nothing of gates; where it may ask Prometheus
(`k8s.prometheus`), the same formula has the group not grow while more pods would not help, as
`supervise/scaling.py` does on one machine. Up it goes twofold at most, down one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mqinfer import plan
from mqinfer.operate.alerts import live

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.deploy.deployment import Cluster, Workers
    from mqinfer.deploy.processes import Plan

Object = dict[str, Any]
# What a HorizontalPodAutoscaler takes, in seconds.
_LONGEST_WINDOW: Final = 3600
_LONGEST_PERIOD: Final = 1800
_UP: Final = {"type": "Percent", "value": 100, "periodSeconds": 30}


def scaled(planned: Plan, app: App, metadata: Object, group: Workers) -> Object:
    """The ScaledObject of a group whose number of processes is a range.

    Args:
        planned: what is deployed.
        app: the app.
        metadata: of the object; the deployment that it scales has the same name.
        group: of workers.
    """
    cluster = planned.deployment.k8s
    triggers = [
        _lag(f"t{number}", cluster, stream, consumer, group.backlog)
        for number, (stream, consumer) in enumerate(plan.backlog(app, group.stages))
    ]
    total = " + ".join(str(one["name"]) for one in triggers)
    if cluster.prometheus:
        triggers += [
            _asked("held", cluster, held(app, group)),
            _asked("pods", cluster, f"count({_in_flight(app, group)})"),
        ]
        # No more pods than there are; fewer where less waits.
        most = f"pods * {group.backlog}"
        total = f"held > 0 && {total} > {most} ? {most} : {total}"
    cooldown = round(group.cooldown)
    down = {"type": "Pods", "value": 1, "periodSeconds": max(1, min(cooldown, _LONGEST_PERIOD))}
    advanced: Object = {
        "horizontalPodAutoscalerConfig": {
            "behavior": {
                "scaleUp": {"stabilizationWindowSeconds": 0, "policies": [_UP]},
                "scaleDown": {
                    "stabilizationWindowSeconds": min(cooldown, _LONGEST_WINDOW),
                    "policies": [down],
                },
            }
        }
    }
    if len(triggers) > 1:  # or the largest alone would count
        advanced["scalingModifiers"] = {
            "formula": total,
            "target": str(group.backlog),
            "metricType": "AverageValue",
        }
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata,
        "spec": {
            "scaleTargetRef": {"name": metadata["name"]},
            "minReplicaCount": group.least,
            "maxReplicaCount": group.most,
            "pollingInterval": 5,
            "advanced": advanced,
            "triggers": triggers,
        },
    }


def held(app: App, group: Workers) -> str:
    """A query: more than 0 while more processes of a group would not help.

    That is while a stage of it is blocked in all of them (a server is away, what is downstream is
    behind), or calls of models have waited for seconds in all of them.
    """
    stages = "|".join(group.stages)
    blocked = f'max(min by (stage) (mqinfer_blocked{{{live(app)}, stage=~"{stages}"}}))'
    if not app.models:
        return blocked
    queue = f"mqinfer_model_calls_queue{{{live(app)}}}"
    return f"{blocked} + (min({queue} and on (instance) {_in_flight(app, group)}) or vector(0))"


def _in_flight(app: App, group: Workers) -> str:
    """Of each process of a group."""
    return f'mqinfer_in_flight{{{live(app)}, stage="{group.stages[0]}"}}'


# All values of a trigger are texts, numbers as well.


def _lag(name: str, cluster: Cluster, stream: str, consumer: str, backlog: int) -> Object:
    return {
        "type": "nats-jetstream",
        "name": name,
        "metadata": {
            "natsServerMonitoringEndpoint": cluster.nats_monitor,
            "account": cluster.nats_account,
            "stream": stream,
            "consumer": consumer,
            "lagThreshold": str(backlog),
        },
    }


def _asked(name: str, cluster: Cluster, query: str) -> Object:
    return {
        "type": "prometheus",
        "name": name,
        "metadata": {
            "serverAddress": cluster.prometheus,
            "query": query,
            "threshold": "1",
            # Nothing is known yet, as before the first pod is seen: 0.
            "ignoreNullValues": "true",
        },
    }
