"""Settings, metrics and alerts as tables, asked of what declares them."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
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
        "an app: [Seen from outside](../tracing.md).\n"
    ]
    for title, families in _exposed():
        parts += [f"## {title}\n", _table(("metric", "type", "labels", "meaning"), families)]
    parts += ["## Alerts of an app\n", "`mqinfer boards APP --rules` writes them.\n"]
    parts += [_table(("alert", "for", "summary"), _rules()), "## Alerts of the monitor\n"]
    parts += ["They stand in `compose/alerts.yml`.\n", _table(("alert", "summary"), _alerts())]
    return "\n".join(parts)


def _exposed() -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Each process that has metrics, and its families."""
    from prometheus_client.parser import text_string_to_metric_families

    from mqinfer.gateway.counting import Counting
    from mqinfer.metrics import Metrics
    from mqinfer.monitor.gauges import exposed

    worker = Metrics(_APP)
    _ = worker.blob_cache  # whose families are shown where there is one
    yield "A worker: `mqinfer worker APP --http PORT`", _families(worker.collect())
    yield "A gateway: `mqinfer gateway APP`", _families(Counting(_APP).collect())
    monitor = text_string_to_metric_families(exposed(_APP, [], 0).decode())
    yield (
        "The monitor: `mqinfer monitor APP --watch --http PORT`",
        [
            (f"`{one.name}`", one.type, _labels(one.name), told)
            for one in monitor
            if (told := escaped(one.documentation))
        ],
    )


def _labels(gauge: str) -> str:
    """Those of the monitor's gauges, which where nothing is watched have none."""
    from mqinfer.monitor.gauges import ACCURACY, LABELS, LOOKED

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
    """The alerts of two apps that together have one of everything, as the command writes them."""
    from mqinfer.cli import main

    first: dict[str, tuple[str, ...]] = {}
    for app in ("plants", "requests"):
        with redirect_stdout(io.StringIO()) as out:
            code = main(["boards", f"examples.{app}.app:app", "--rules"])
        if code:
            raise RuntimeError(f"mqinfer boards says {code} of {app}")
        for group in json.loads(out.getvalue())["groups"]:
            for rule in group["rules"]:
                summary = rule["annotations"]["summary"]
                for name, stands in ((rule["labels"].get("stage"), "STAGE"), (app, "APP")):
                    summary = re.sub(rf"\b{name}\b", stands, summary) if name else summary
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
