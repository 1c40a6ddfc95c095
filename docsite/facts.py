"""Settings, metrics and alerts as tables, asked of what declares them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from docsite.commands import escaped
from docsite.links import ROOT

_APP: Final = "shop"


def settings() -> str:
    """Every setting of the environment."""
    from mqinfer.settings import Settings

    rows = [
        (f"`{one.env}`", one.type, f"`{one.default}`" if one.default else "", escaped(one.meaning))
        for one in Settings.describe()
    ]
    return (
        "# Settings\n\nEverything that is set from outside; `mqinfer settings` prints it with the "
        "values that are set. A flag of a command wins over its variable.\n\n"
        + _table(("variable", "type", "default", "meaning"), rows)
        + "\n`MQINFER_DEBUG=1` has commands print tracebacks, as `--debug` does. Traces are set by "
        "OpenTelemetry's own `OTEL_*` ([tracing](../tracing.md)).\n"
    )


def metrics() -> str:
    """Every metric and every alert, by name."""
    parts = [
        "# Metrics and alerts\n\nBy name, made of what exposes them. How boards and rules follow "
        "an app: [Seen from outside](../tracing.md). What a worker does for a replay has a label "
        '`run` besides: `run=""` is live work.\n'
    ]
    for title, families in _exposed():
        parts += [f"## {title}\n", _table(("metric", "type", "labels", "meaning"), families)]
    parts += [
        "## Alerts of an app\n",
        "`mqinfer boards APP --rules` writes them; those of groups, ",
    ]
    parts += ["`mqinfer deploy render`.\n"]
    parts += [_table(("alert", "for", "summary"), _rules()), "## Alerts of the monitor\n"]
    parts += ["They stand in `compose/alerts.yml`.\n", _table(("alert", "summary"), _alerts())]
    return "\n".join(parts)


def _exposed() -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Each process that has metrics, and its families."""
    from prometheus_client.parser import text_string_to_metric_families

    from mqinfer.gateway.counting import Counting
    from mqinfer.metrics import Metrics
    from mqinfer.monitor.gauges import exposed
    from mqinfer.search.counting import Counting as Searched
    from mqinfer.stack.inferenceserver.statistics import prometheus

    worker = Metrics(_APP)
    _, worker.queueing = worker.blob_cache, False  # whose families are shown where there are any
    yield "A worker: `mqinfer worker APP --http PORT`", _families(worker.registry.collect())
    yield "A gateway: `mqinfer gateway APP`", _families(Counting(_APP).collect())
    index = Searched(_APP).now([])
    yield "An index: `mqinfer index APP serve --http PORT`", _families(index.collect())
    for title, text in (
        ("The monitor: `mqinfer monitor APP --watch --http PORT`", exposed(_APP, [], 0).decode()),
        ("Models: Triton, and `mqinfer up` without it by the same names", prometheus([])),
    ):
        yield (
            title,
            [
                (f"`{one.name}`", one.type, _labels(one.name), told)
                for one in text_string_to_metric_families(text)
                if (told := escaped(one.documentation))
            ],
        )


def _labels(gauge: str) -> str:
    """Those of gauges that have none where nothing is watched, and no model served."""
    from mqinfer.monitor.gauges import ACCURACY, LABELS, LOOKED

    if gauge.startswith("nv_"):
        return "model, reason, version" if gauge.endswith("_failure") else "model, version"
    labels = ("app",) if gauge == LOOKED else (*LABELS, "how") if gauge == ACCURACY else LABELS
    return ", ".join(labels)


def _families(found: Iterable[Any]) -> list[tuple[str, ...]]:
    return [
        (
            f"`{one.name}{'_total' if one.type == 'counter' else ''}`",
            one.type,
            ", ".join(one._labelnames),  # the only place that knows them where nothing is counted
            escaped(one.documentation),
        )
        for one in found
    ]


def _rules() -> list[tuple[str, ...]]:
    """The alerts of apps that together have one of everything, deployed in a group that scales."""
    from mqinfer.operate.alerts import Group, Running, rules

    first: dict[str, tuple[str, ...]] = {}
    for name in ("plants", "requests", "search"):
        app = importlib.import_module(f"examples.{name}.app").app
        running = Running((Group("GROUP", tuple(app.stages), 1, 8),), dict.fromkeys(app.indexes, 2))
        for rule in rules(app, None, running)["groups"][0]["rules"]:
            summary, labels = rule["annotations"]["summary"], rule["labels"]
            for label, stands in ("stage", "STAGE"), ("index", "INDEX"), ("model", "MODEL"):
                if label in labels:
                    summary = re.sub(rf"\b{labels[label]}\b", stands, summary)
            summary = re.sub(rf"\b{app.name}\b", "APP", summary)
            alert = rule["alert"]
            first.setdefault(alert, (f"`{alert}`", rule["for"], escaped(summary)))
    return list(first.values())


def _alerts() -> list[tuple[str, ...]]:
    text = (ROOT / "compose/alerts.yml").read_text()
    return [
        (f"`{name}`", escaped(summary))
        for name, summary in re.findall(r'alert: (\w+).*?summary: "(.*?)"\n', text, re.DOTALL)
    ]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "&#124;") for cell in line) + " |\n" for line in lines
    )
