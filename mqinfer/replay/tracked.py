"""Tracked: a comparison as a record of an experiment: parameters, metrics, the report. Pure.

A comparison is one record, whoever makes it and however often: what is compared later is a further
value of its metrics. So a shadow that goes on has a curve.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.replay.run import Run

_ODD = re.compile(r"[^\w./ -]", re.ASCII)  # what no tracker takes in a name


@dataclass(frozen=True, slots=True)
class Record:
    """What a tracker keeps.

    Attributes:
        experiment: that it belongs to.
        name: for people.
        key: that tells it from all others of the experiment; "" is a new one each time.
        parameters: that it was made with; those of the first time stay.
        metrics: numbers.
        files: texts by file name.
    """

    experiment: str
    name: str
    key: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def record(app: App, run: Run, facts: Mapping[str, Any], page: str) -> Record:
    """A comparison of a run.

    Args:
        app: the app.
        run: the new side.
        facts: as `mqinfer.replay.compare.compare` gives them.
        page: the same as HTML.
    """
    parameters = {
        "app": app.name,
        "run": run.name,
        "with": str(facts["with"]),
        "stage": run.stage,
        "downstream": str(run.downstream),
        "from": str(run.start),
        **{f"model.{name}": version for name, version in sorted(run.models.items())},
    }
    metrics: dict[str, float] = {}
    for table in facts["tables"]:
        counts = ("matched", "only_new", "only_old", "agreement")
        metrics |= _named(str(table["table"]), {name: table[name] for name in counts})
        for column, found in table["columns"].items():
            values = {"agreement": found["agreement"], **(found.get("numbers") or {})}
            metrics |= _named(f"{table['table']}.{column}", values)
    return Record(
        experiment=f"mqinfer-{app.name}",
        name=f"{run.name} beside {facts['with']}",
        key=f"{app.name}/{run.name}/{facts['with']}",
        parameters={_ODD.sub("_", name): value for name, value in parameters.items()},
        metrics=metrics,
        files={
            "comparison.json": json.dumps(facts, indent=2, default=str),
            "comparison.html": page,
        },
    )


def _named(start: str, values: Mapping[str, Any]) -> dict[str, float]:
    """Those that are numbers, under the names of metrics."""
    return {
        _ODD.sub("_", f"{start}.{name}"): float(value)
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    }
