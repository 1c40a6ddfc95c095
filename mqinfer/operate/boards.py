"""Boards: a board for Grafana and rules for Prometheus that follow an app; no server is asked.

A panel is one of a kind with a line for each stage, model or table, so that a board of an app of
thirty stages is as long as one of three; what the app has not (models, tables, endpoints) has none.
The rules name each stage with its own limits: what is slow for one is ordinary for another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from mqinfer import plan

if TYPE_CHECKING:
    from mqinfer.app import App

SOURCE: Final = {"type": "prometheus", "uid": "prometheus"}
_RATE: Final = "[$__rate_interval]"
# Of a stage's attempts that fail, more is for somebody to look at.
_FAILING: Final = 0.1

Panel = tuple[str, str, str, Sequence[tuple[str, str]]]  # title, text, unit, (query, legend)


def board(app: App) -> dict[str, Any]:
    """The board of an app, as Grafana imports it, or finds it in a provisioned folder.

    Args:
        app: whose stages, models, tables and endpoints have panels.
    """
    panels = [
        {
            "id": number + 1,
            "type": "timeseries",
            "title": title,
            "description": text,
            "datasource": SOURCE,
            "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": [
                {
                    "refId": chr(ord("A") + place),
                    "datasource": SOURCE,
                    "expr": query,
                    "legendFormat": name,
                }
                for place, (query, name) in enumerate(queries)
            ],
        }
        for number, (title, text, unit, queries) in enumerate(_panels(app))
    ]
    return {
        "uid": f"mqinfer-{app.name}"[:40],  # Grafana takes no longer one
        "title": f"mqinfer {app.name}",
        "tags": ["mqinfer", app.name],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "templating": {"list": []},
        "annotations": {"list": []},
        "panels": panels,
    }


def _panels(app: App) -> Iterator[Panel]:
    of = f'app="{app.name}"'
    names = "|".join(task.name for task in plan.tasks(app) if task.stage or task.row)
    stages = f'{of}, stage=~"{names}"'
    yield (
        "Lag",
        "Messages that a stage or sink has not done.",
        "short",
        [(f"max by (stage) (mqinfer_lag{{{stages}}})", "{{stage}}")],
    )
    yield (
        "Rate",
        "Messages a second by how they ended.",
        "ops",
        [
            (
                f"sum by (stage, outcome) (rate(mqinfer_messages_total{{{stages}}}{_RATE}))",
                "{{stage}} {{outcome}}",
            )
        ],
    )
    yield (
        "Does not pull",
        "1 where a gate is closed: /readyz and mqinfer status say why.",
        "short",
        [(f"max by (stage) (mqinfer_blocked{{{stages}}})", "{{stage}}")],
    )
    yield (
        "Dead letters",
        "In five minutes; mqinfer dead list tells of each.",
        "short",
        [
            (
                f"sum by (stage, kind) (increase(mqinfer_dead_letters_total{{{of}}}[5m]))",
                "{{stage}} {{kind}}",
            )
        ],
    )
    yield (
        "Time of a handling",
        "From its start to the acknowledgement.",
        "s",
        _quantiles("mqinfer_handle_seconds", "stage", stages),
    )
    yield (
        "From the stream to the end",
        "Since the stream took the message.",
        "s",
        _quantiles("mqinfer_end_to_end_seconds", "stage", stages),
    )
    yield (
        "In flight",
        "Messages taken and not settled.",
        "short",
        [(f"sum by (stage) (mqinfer_in_flight{{{stages}}})", "{{stage}}")],
    )
    yield (
        "Blocked event loops",
        "Seconds a second that a handler held its process.",
        "percentunit",
        [(f"sum by (stage) (rate(mqinfer_loop_blocked_seconds_sum{{{of}}}{_RATE}))", "{{stage}}")],
    )
    if app.models:
        yield (
            "Model calls",
            "Items a second, answered; and requests that were not.",
            "ops",
            [
                (
                    f"sum by (model, version) (rate(mqinfer_model_items_total{{{of}}}{_RATE}))",
                    "{{model}} {{version}}",
                ),
                (
                    f"sum by (model) (rate(mqinfer_model_failures_total{{{of}}}{_RATE}))",
                    "{{model}} failed",
                ),
            ],
        )
        yield (
            "Time of a model's request",
            "With its network.",
            "s",
            _quantiles("mqinfer_model_request_seconds", "model", of),
        )
    if app.rows:
        yield (
            "Rows",
            "Stored a second, and refused.",
            "ops",
            [
                (f"sum by (table) (rate(mqinfer_sink_rows_total{{{of}}}{_RATE}))", "{{table}}"),
                (
                    f"sum by (table) (rate(mqinfer_sink_refused_rows_total{{{of}}}{_RATE}))",
                    "{{table}} refused",
                ),
            ],
        )
        yield (
            "Time of an insert",
            "Of a block of rows.",
            "s",
            _quantiles("mqinfer_sink_insert_seconds", "table", of),
        )
    if app.endpoints:
        yield (
            "Gateway",
            "Answers a second by status.",
            "ops",
            [
                (
                    f"sum by (status) (rate(mqinfer_gateway_answers_total{{{of}}}{_RATE}))",
                    "{{status}}",
                )
            ],
        )
        yield (
            "Time to accept a request",
            "From its head to its id.",
            "s",
            _quantiles("mqinfer_gateway_accept_seconds", "app", of),
        )


def _quantiles(metric: str, label: str, labels: str) -> list[tuple[str, str]]:
    rates = f"sum by ({label}, le) (rate({metric}_bucket{{{labels}}}{_RATE}))"
    return [
        (f"histogram_quantile({part}, {rates})", f"{{{{{label}}}}} p{round(100 * part)}")
        for part in (0.5, 0.99)
    ]


def rules(app: App) -> dict[str, Any]:
    """The alert rules of an app, as a file of rules for Prometheus says them (YAML or JSON).

    Args:
        app: whose stages, models, tables and endpoints have rules.
    """
    found = [rule for task in plan.tasks(app) if task.stage or task.row for rule in _of(app, task)]
    of = f'app="{app.name}"'
    found.append(
        _rule(
            "NoWorker",
            f"absent(mqinfer_messages_total{{{of}}})",
            "10m",
            "critical",
            f"no worker of {app.name} is seen",
        )
    )
    if app.models:
        failed = f"sum by (model) (rate(mqinfer_model_failures_total{{{of}}}[5m]))"
        found.append(
            _rule(
                "ModelFails",
                f"{failed} > 0",
                "10m",
                "warning",
                "requests of {{ $labels.model }} are refused, or not answered",
            )
        )
    if app.endpoints:
        errors = f'sum(rate(mqinfer_gateway_answers_total{{{of}, status=~"5.."}}[5m]))'
        asked = f"sum(rate(mqinfer_gateway_answers_total{{{of}}}[5m]))"
        found.append(
            _rule(
                "GatewayFails",
                f"{errors} / {asked} > 0.01",
                "5m",
                "critical",
                "{{ $value | humanizePercentage }} of the answers are errors of the server's",
            )
        )
    return {"groups": [{"name": f"mqinfer-{app.name}", "rules": found}]}


def _of(app: App, task: plan.Task) -> Iterator[dict[str, Any]]:
    """The rules of one stage or sink."""
    of = f'app="{app.name}", stage="{task.name}"'
    told = {"stage": task.name}
    lag = f"max(mqinfer_lag{{{of}}})"
    done = f"sum(rate(mqinfer_messages_total{{{of}}}[10m]))"
    yield _rule(
        "Behind",
        f"{lag} > 0 and {done} == 0",
        "10m",
        "critical",
        f"{task.name}: {{{{ $value }}}} messages wait, and none is done",
        **told,
    )
    yield _rule(
        "WillLose",
        f"{lag} / {done} > {app.max_age / 2:.0f}",
        "15m",
        "critical",
        f"{task.name}: what waits takes longer than half of what the stream keeps it for",
        **told,
    )
    yield _rule(
        "Blocked",
        f"min(mqinfer_blocked{{{of}}}) == 1",
        "10m",
        "warning",
        f"{task.name} does not pull: /readyz and `mqinfer status` say why",
        **told,
    )
    dead = f"sum(increase(mqinfer_dead_letters_total{{{of}}}[10m]))"
    yield _rule(
        "DeadLetters",
        f"{dead} > 0",
        "0m",
        "warning",
        f"{task.name}: {{{{ $value | humanize }}}} dead letters; `mqinfer dead list` tells of each",
        **told,
    )
    if task.stage is None:
        return
    failing = f'sum(rate(mqinfer_messages_total{{{of}, outcome="retried"}}[10m]))'
    yield _rule(
        "Failing",
        f"{failing} / {done} > {_FAILING}",
        "10m",
        "warning",
        f"{task.name}: {{{{ $value | humanizePercentage }}}} of the attempts fail",
        **told,
    )
    slow = (
        f"histogram_quantile(0.99, sum by (le) (rate(mqinfer_handle_seconds_bucket{{{of}}}[10m])))"
    )
    yield _rule(
        "Slow",
        f"{slow} > {task.limits.timeout / 2:g}",
        "10m",
        "warning",
        f"{task.name}: a handling takes more than half of its timeout",
        **told,
    )


def _rule(
    name: str, query: str, lasting: str, severity: str, summary: str, **labels: str
) -> dict[str, Any]:
    return {
        "alert": f"Mqinfer{name}",
        "expr": query,
        "for": lasting,
        "labels": {"severity": severity, **labels},
        "annotations": {"summary": summary},
    }
