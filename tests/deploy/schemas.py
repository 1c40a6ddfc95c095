"""Strict schemas of what is rendered, offline: a key that they do not know is refused.

Kubernetes' own objects are checked by `kubernetes-validate`, Compose's files by `compose-spec`. Of
KEDA and the operator of Prometheus no package has the schemas as data: what follows is their
custom resources as documented, but for what nobody here may write.
"""

from __future__ import annotations

from typing import Any

import jsonschema
import kubernetes_validate

VERSION = "1.34"
TEXT = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 0}


def table(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
META = table(["name"], name=TEXT, namespace=TEXT, labels=TEXTS, annotations=TEXTS)
RULES = table([], stabilizationWindowSeconds=COUNT, selectPolicy=TEXT, policies={"type": "array"})
NATS = table(
    ["natsServerMonitoringEndpoint", "account", "stream", "consumer", "lagThreshold"],
    natsServerMonitoringEndpoint={"type": "string", "pattern": r"^[\w.-]+:\d+$"},
    account=TEXT,
    stream=TEXT,
    consumer=TEXT,
    lagThreshold={"type": "string", "pattern": r"^\d+$"},
    activationLagThreshold={"type": "string", "pattern": r"^\d+$"},
    useHttps={"enum": ["true", "false"]},
)
SCALED = table(
    ["scaleTargetRef", "triggers"],
    scaleTargetRef=table(["name"], name=TEXT, apiVersion=TEXT, kind=TEXT),
    pollingInterval=COUNT,
    cooldownPeriod=COUNT,
    initialCooldownPeriod=COUNT,
    idleReplicaCount=COUNT,
    minReplicaCount=COUNT,
    maxReplicaCount=COUNT,
    advanced=table(
        [],
        restoreToOriginalReplicaCount={"type": "boolean"},
        horizontalPodAutoscalerConfig=table(
            [], name=TEXT, behavior=table([], scaleUp=RULES, scaleDown=RULES)
        ),
        scalingModifiers=table(
            ["formula", "target"],
            formula={"type": "string", "pattern": r"^\w+( \+ \w+)*$"},
            target={"type": "string", "pattern": r"^\d+$"},
            activationTarget=TEXT,
            metricType={"enum": ["AverageValue", "Value"]},
        ),
    ),
    fallback=table(["failureThreshold", "replicas"], failureThreshold=COUNT, replicas=COUNT),
    triggers={
        "type": "array",
        "minItems": 1,
        "items": table(
            ["type", "metadata"],
            type={"const": "nats-jetstream"},
            name=TEXT,
            useCachedMetrics={"type": "boolean"},
            metricType={"enum": ["AverageValue", "Value", "Utilization"]},
            metadata=NATS,
            authenticationRef=table(["name"], name=TEXT, kind=TEXT),
        ),
    },
)
MONITOR = table(
    ["selector", "podMetricsEndpoints"],
    selector=table([], matchLabels=TEXTS, matchExpressions={"type": "array"}),
    namespaceSelector={"type": "object"},
    podMetricsEndpoints={
        "type": "array",
        "items": table([], port=TEXT, path=TEXT, interval=TEXT, scheme=TEXT),
    },
)
OTHERS = {
    ("keda.sh/v1alpha1", "ScaledObject"): SCALED,
    ("monitoring.coreos.com/v1", "PodMonitor"): MONITOR,
}


def check(thing: dict[str, Any]) -> None:
    """Raises what is wrong with an object of Kubernetes."""
    own = OTHERS.get((thing["apiVersion"], thing["kind"]))
    if own is None:
        kubernetes_validate.validate(thing, VERSION, strict=True)
        return
    whole = table(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion=TEXT,
        kind=TEXT,
        metadata=META,
        spec=own,
    )
    jsonschema.validate(thing, whole)
