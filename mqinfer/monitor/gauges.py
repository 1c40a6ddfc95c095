"""Gauges: how every series stands, in Prometheus's text format; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Gauge, generate_latest

if TYPE_CHECKING:
    from mqinfer.monitor.looking import Standing

LABELS: Final = ("app", "table", "column", "model", "version")
EVIDENCE: Final = "mqinfer_monitor_evidence_ratio"
ALARMS: Final = "mqinfer_monitor_alarms"
PSI: Final = "mqinfer_monitor_psi"
ROWS: Final = "mqinfer_monitor_rows"
ACCURACY: Final = "mqinfer_monitor_accuracy"
LOOKED: Final = "mqinfer_monitor_looked_timestamp_seconds"


def exposed(app: str, standing: Sequence[Standing], now: float) -> bytes:
    """The gauges after a look.

    Args:
        app: whose series they are.
        standing: of each.
        now: when it was looked, seconds since the epoch.
    """
    registry = CollectorRegistry()

    def gauge(name: str, told: str, labels: Sequence[str] = LABELS) -> Gauge:
        return Gauge(name, told, labels, registry=registry)

    evidence = gauge(EVIDENCE, "Evidence of a change, as a part of what is an alarm.")
    alarms = gauge(ALARMS, "Alarms that stand: open or acknowledged, and not muted.")
    psi = gauge(PSI, "PSI of the window against the reference, without what chance gives.")
    rows = gauge(ROWS, "Rows of the window.")
    accuracy = gauge(
        ACCURACY, "Accuracy of the window: how='counted' by truth, or 'estimated' from confidence.",
        (*LABELS, "how"),
    )  # fmt: skip
    gauge(LOOKED, "When the monitor looked last, or began.", ("app",)).labels(app).set(now)
    for one in standing:
        series = one.series
        labels = (app, series.table, series.column, series.model, series.version)
        rows.labels(*labels).set(one.verdict.rows)
        alarms.labels(*labels).set(len(one.alarms(now)))
        if one.evidence is not None:
            evidence.labels(*labels).set(one.evidence)
        if one.verdict.psi is not None and one.verdict.psi.enough:
            psi.labels(*labels).set(one.verdict.psi.value)
        if one.accuracy is not None:
            how = "counted" if one.accuracy.true else "estimated"
            accuracy.labels(*labels, how).set(one.accuracy.value)
    return generate_latest(registry)
