"""Alerts: rules for Prometheus that follow an app, and how it is deployed. Pure.

The rules name each stage with its own limits: what is slow for one is ordinary for another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mqinfer import plan

if TYPE_CHECKING:
    from mqinfer.app import App

_UNREAD: Final = 1000  # vectors; what comes in a second or so is always on its way


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """When somebody is told.

    Attributes:
        behind: seconds for which messages wait and none is done.
        failing: part of a stage's attempts that fail.
        slow: part of a stage's timeout that one handling in a hundred takes.
        dead_letters: of a stage in ten minutes, beyond which somebody is told.
        labels: that each alert has beside its own, to say whom it is for.
    """

    behind: float = 600.0
    failing: float = 0.1
    slow: float = 0.5
    dead_letters: int = 0
    labels: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Group:
    """Worker processes that run some of an app's stages.

    Attributes:
        name: of the group.
        stages: that they run, and sinks.
        least: processes.
        most: the same.
        target: seconds in which what waits should be done.
    """

    name: str
    stages: tuple[str, ...]
    least: int = 1
    most: int = 1
    target: float = 30.0

    @property
    def range(self) -> str:
        """How many there may be, in words."""
        return f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"

    def processes(self, app: App) -> str:
        """A query: how many there are."""
        return f'count(mqinfer_in_flight{{{live(app)}, stage="{self.stages[0]}"}})'

    def wait(self, app: App) -> str:
        """A query: seconds until what waits is done."""
        of = f'{live(app)}, stage=~"{"|".join(self.stages)}"'
        waits = f"sum(max by (stage) (mqinfer_lag{{{of}}}))"
        return f"{waits} / {_done(of, '10m')}"


@dataclass(frozen=True, slots=True)
class Running:
    """How an app is deployed.

    Attributes:
        groups: of workers.
        replicas: of the shards of each index.
    """

    groups: tuple[Group, ...] = ()
    replicas: Mapping[str, int] = field(default_factory=dict)


def live(app: App) -> str:
    """Labels of what an app's processes do, replays aside."""
    return f'app="{app.name}", run=""'


def _done(of: str, window: str) -> str:
    """A query: messages a second that were done with, and do not come again."""
    return f'sum(rate(mqinfer_messages_total{{{of}, outcome!~"retried|snoozed"}}[{window}]))'


def rules(
    app: App, thresholds: Thresholds | None = None, running: Running | None = None
) -> dict[str, Any]:
    """The alert rules of an app, as a file of rules for Prometheus says them (YAML or JSON).

    Args:
        app: whose stages, models, tables, indexes and endpoints have rules.
        thresholds: when somebody is told; None is what is usual.
        running: how it is deployed, where that is known: its groups have rules as well.
    """
    told = thresholds or Thresholds()
    tasks = [task for task in plan.tasks(app) if task.stage or task.row]
    found = [rule for task in tasks for rule in _of(app, task, told)]
    of = live(app)
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
    for name, index in app.indexes.items():
        replicas = running.replicas.get(name, 1) if running else 1
        for model in index.models:
            found += _of_index(app, name, model, replicas)
    for group in running.groups if running else ():
        found += _of_group(app, group)
    for rule in found:
        rule["labels"] = {**told.labels, **rule["labels"]}
    return {"groups": [{"name": f"mqinfer-{app.name}", "rules": found}]}


def _of(app: App, task: plan.Task, told: Thresholds) -> Iterator[dict[str, Any]]:
    """The rules of one stage or sink."""
    of = f'{live(app)}, stage="{task.name}"'
    stage = {"stage": task.name}
    lag, total = f"max(mqinfer_lag{{{of}}})", "mqinfer_messages_total"
    # What one handling may take is no standstill; a sink's has no bound.
    lasting = max(told.behind, task.limits.timeout) if task.stage else told.behind
    yield _rule(
        "NoWorker",
        # Where nobody works on the app at all, that is told once.
        f"absent({total}{{{of}}}) and on () count({total}{{{live(app)}}})",
        "10m",
        "critical",
        f"{task.name}: no worker of it is seen",
        **stage,
    )
    yield _rule(
        "Behind",
        f"{lag} > 0 and {_done(of, '5m')} == 0",
        f"{lasting:.0f}s",
        "critical",
        f"{task.name}: {{{{ $value }}}} messages wait, and none is done",
        **stage,
    )
    if app.max_age:
        # Where none is done, `Behind` says so.
        yield _rule(
            "WillLose",
            f"{lag} / ({_done(of, '10m')} > 0) > {app.max_age / 2:.0f}",
            "15m",
            "critical",
            f"{task.name}: what waits takes longer than half of what the stream keeps it for",
            **stage,
        )
    yield _rule(
        "Blocked",
        f"min(mqinfer_blocked{{{of}}}) == 1",
        "10m",
        "warning",
        f"{task.name} does not pull: /readyz and `mqinfer status` say why",
        **stage,
    )
    dead = f"sum(increase(mqinfer_dead_letters_total{{{of}}}[10m]))"
    yield _rule(
        "DeadLetters",
        f"{dead} > {told.dead_letters}",
        "0m",
        "warning",
        f"{task.name}: {{{{ $value | humanize }}}} dead letters; `mqinfer dead list` tells of each",
        **stage,
    )
    if task.stage is None:
        return
    failing = f'sum(rate(mqinfer_messages_total{{{of}, outcome="retried"}}[10m]))'
    attempts = f'sum(rate(mqinfer_messages_total{{{of}, outcome!="snoozed"}}[10m]))'
    yield _rule(
        "Failing",
        f"{failing} / {attempts} > {told.failing:g}",
        "10m",
        "warning",
        f"{task.name}: {{{{ $value | humanizePercentage }}}} of the attempts fail",
        **stage,
    )
    slow = (
        f"histogram_quantile(0.99, sum by (le) (rate(mqinfer_handle_seconds_bucket{{{of}}}[10m])))"
    )
    yield _rule(
        "Slow",
        f"{slow} > {task.limits.timeout * told.slow:g}",
        "10m",
        "warning",
        f"{task.name}: one handling of a hundred takes over {100 * told.slow:g} % of its timeout",
        **stage,
    )


def _of_group(app: App, group: Group) -> Iterator[dict[str, Any]]:
    """The rules of a group of workers."""
    where = {"group": group.name}
    processes, wait = group.processes(app), group.wait(app)
    yield _rule(
        "FewProcesses",
        f"({processes} or vector(0)) < {group.least}",
        "5m",
        "warning",
        f"workers.{group.name}: {{{{ $value }}}} of {group.range} processes are seen",
        **where,
    )
    if group.most > group.least:
        yield _rule(
            "OverTarget",
            f"{wait} > {group.target:g} and {processes} >= {group.most}",
            "15m",
            "warning",
            f"workers.{group.name} has all of its {group.most} processes, and what waits takes "
            f"{{{{ $value | humanizeDuration }}}}, its target is {group.target:g} s",
            **where,
        )


def _of_index(app: App, name: str, model: str, replicas: int) -> Iterator[dict[str, Any]]:
    """The rules of one model of an index."""
    of = f'app="{app.name}", index="{name}", model="{model}"'
    where = {"index": name, "model": model}
    searched = f'{{{of}, searched="true"}}'
    shards = f"sum(max by (shard) (mqinfer_index_ready{searched}))"
    yield _rule(
        "IndexNotHeld",
        f"absent(mqinfer_index_shards{{{of}}})",
        "5m",
        "critical",
        f"index {name}: no process holds {model}: `mqinfer index APP serve`",
        **where,
    )
    yield _rule(
        "ShardMissing",
        f"({shards} or vector(0)) < max(mqinfer_index_shards{{{of}}})",
        "1m",
        "critical",
        f"index {name} {model}: only {{{{ $value }}}} shards answer: searches miss vectors",
        **where,
    )
    yield _rule(
        "IndexBehind",
        f"max(mqinfer_index_lag{searched}) > {_UNREAD}",
        "10m",
        "warning",
        f"index {name} {model}: {{{{ $value }}}} vectors are published and not found yet",
        **where,
    )
    if replicas > 1:
        yield _rule(
            "FewReplicas",
            f"min(sum by (shard) (mqinfer_index_ready{searched})) < {replicas}",
            "10m",
            "warning",
            f"index {name} {model}: a shard has {{{{ $value }}}} of {replicas} replicas",
            **where,
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
