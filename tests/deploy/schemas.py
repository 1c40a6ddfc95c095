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
POLICY = table(
    ["type", "value", "periodSeconds"],
    type={"enum": ["Pods", "Percent"]},
    value={"type": "integer", "minimum": 1},
    periodSeconds={"type": "integer", "minimum": 1, "maximum": 1800},
)
RULES = table(
    [],
    stabilizationWindowSeconds={"type": "integer", "minimum": 0, "maximum": 3600},
    selectPolicy={"enum": ["Max", "Min", "Disabled"]},
    policies={"type": "array", "items": POLICY},
)
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
ASKED = table(
    ["serverAddress", "query", "threshold"],
    serverAddress={"type": "string", "pattern": "^https?://"},
    query=TEXT,
    threshold={"type": "string", "pattern": r"^\d+(\.\d+)?$"},
    activationThreshold={"type": "string", "pattern": r"^\d+$"},
    ignoreNullValues={"enum": ["true", "false"]},
)
NAMES = {"name": TEXT, "useCachedMetrics": {"type": "boolean"}}
METRIC = {"metricType": {"enum": ["AverageValue", "Value", "Utilization"]}}
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
            formula={"type": "string", "pattern": r"^[\w +*>&?:]+$"},
            target={"type": "string", "pattern": r"^\d+$"},
            activationTarget=TEXT,
            metricType={"enum": ["AverageValue", "Value"]},
        ),
    ),
    fallback=table(["failureThreshold", "replicas"], failureThreshold=COUNT, replicas=COUNT),
    triggers={
        "type": "array",
        "minItems": 1,
        "items": {
            "oneOf": [
                table(
                    ["type", "metadata"],
                    type={"const": kind},
                    metadata=metadata,
                    authenticationRef=table(["name"], name=TEXT, kind=TEXT),
                    **NAMES,
                    **METRIC,
                )
                for kind, metadata in (("nats-jetstream", NATS), ("prometheus", ASKED))
            ]
        },
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
ALERT = table(
    ["alert", "expr"],
    alert=TEXT,
    expr=TEXT,
    **{"for": {"type": "string", "pattern": r"^\d+[smh]$"}},
    labels=TEXTS,
    annotations=TEXTS,
)
ALERTS = table(
    ["groups"],
    groups={
        "type": "array",
        "items": table(["name", "rules"], name=TEXT, rules={"type": "array", "items": ALERT}),
    },
)
OTHERS = {
    ("monitoring.coreos.com/v1", "PrometheusRule"): ALERTS,
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
