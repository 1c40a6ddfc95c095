"""Boards: a board for Grafana that follows an app, and how it is deployed. Pure.

A panel is one of a kind with a line for each stage, model, table or index, so that a board of an
app of thirty stages is as long as one of three; what the app has not (models, tables, endpoints)
has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from mqinfer import plan
from mqinfer.operate.alerts import live

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.operate.alerts import Running

SOURCE: Final = {"type": "prometheus", "uid": "prometheus"}
_RATE: Final = "[$__rate_interval]"

Panel = tuple[str, str, str, Sequence[tuple[str, str]]]  # title, text, unit, (query, legend)


def board(app: App, running: Running | None = None) -> dict[str, Any]:
    """The board of an app, as Grafana imports it, or finds it in a provisioned folder.

    Args:
        app: whose stages, models, tables, indexes and endpoints have panels.
        running: how it is deployed, where that is known: its groups have panels as well.
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
        for number, (title, text, unit, queries) in enumerate(_panels(app, running))
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


def _panels(app: App, running: Running | None) -> Iterator[Panel]:
    of = live(app)
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
        "Messages a second that were answered, and those that ended otherwise, or come again.",
        "ops",
        [
            (
                f'sum by (stage) (rate(mqinfer_messages_total{{{stages}, outcome="done"}}{_RATE}))',
                "{{stage}}",
            ),
            (
                "sum by (stage, outcome) "
                f'(rate(mqinfer_messages_total{{{stages}, outcome!="done"}}{_RATE})) > 0',
                "{{stage}} {{outcome}}",
            ),
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
                f"sum by (stage, kind) (increase(mqinfer_dead_letters_total{{{of}}}[5m])) > 0",
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
        [
            (
                f"sum by (stage) (rate(mqinfer_loop_blocked_seconds_sum{{{of}}}{_RATE})) > 0",
                "{{stage}}",
            )
        ],
    )
    if running is not None and running.groups:
        yield (
            "Processes",
            "Of each group, and how many it may have.",
            "short",
            [(one.processes(app), f"{one.name} ({one.range})") for one in running.groups],
        )
        yield (
            "Time until what waits is done",
            "At the pace of the last ten minutes, and the target of each group.",
            "s",
            [(one.wait(app), f"{one.name} (target {one.target:g} s)") for one in running.groups],
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
    if app.indexes:
        yield from _index_panels(of)
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


def _index_panels(of: str) -> Iterator[Panel]:
    searched = f'{of}, searched="true"'
    yield (
        "Searches",
        "Of shards a second: one of a client asks each shard once; and questions at fault.",
        "ops",
        [
            (
                f"sum by (index, model) (rate(mqinfer_index_search_seconds_count{{{of}}}{_RATE}))",
                "{{index}} {{model}}",
            ),
            (
                f"sum by (index) (rate(mqinfer_index_refused_searches_total{{{of}}}{_RATE}))",
                "{{index}} refused",
            ),
        ],
    )
    yield (
        "Time of a search",
        "Of one shard, from the question to its answer.",
        "s",
        _quantiles("mqinfer_index_search_seconds", "index", of),
    )
    yield (
        "Vectors",
        "Of the generation that is searched.",
        "short",
        [
            (
                f"sum by (index, model) (max by (index, model, shard) "
                f"(mqinfer_index_vectors{{{searched}}}))",
                "{{index}} {{model}}",
            ),
            (f"max by (index) (mqinfer_index_lag{{{searched}}})", "{{index}} not read yet"),
        ],
    )
    yield (
        "Replicas that answer",
        "Of each shard; where there is none, searches say that it is missing.",
        "short",
        [
            (
                f"sum by (index, model, shard) (mqinfer_index_ready{{{searched}}})",
                "{{index}} {{model}} {{shard}}",
            )
        ],
    )


def _quantiles(metric: str, label: str, labels: str) -> list[tuple[str, str]]:
    rates = f"sum by ({label}, le) (rate({metric}_bucket{{{labels}}}{_RATE}))"
    return [
        (f"histogram_quantile({part}, {rates})", f"{{{{{label}}}}} p{round(100 * part)}")
        for part in (0.5, 0.99)
    ]
