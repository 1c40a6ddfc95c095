"""Boards and rules follow the app, and ask for nothing that mqinfer does not export."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mqinfer import App
from mqinfer.gateway.counting import Counting
from mqinfer.observe import Metrics
from mqinfer.operate.boards import board, rules
from tests.support.cli import Shell
from tests.support.traced_app import app, small

COMPOSE = Path(__file__).parents[2] / "compose"


def exported() -> dict[str, set[str]]:
    """The series that workers and gateways show, and the labels of each."""
    metrics, counting = Metrics("a"), Counting("a")
    metrics.stage("s").watch(type("Some", (), {"in_flight": 0, "bytes_in_flight": 0})(), lambda: 0)
    metrics.sink("t").inserted(1, 0.1)
    metrics.request("m", "1", 1, 0.1)
    counting.answered["GET /", 200] += 1
    found: dict[str, set[str]] = {}
    for text in (metrics.render(), counting.render()):
        for name, labels in re.findall(r"^(mqinfer_\w+)(?:\{(.*)\})? ", text.decode(), re.M):
            found.setdefault(name, set()).update(re.findall(r"(\w+)=", labels))
        for name, kind in re.findall(r"^# TYPE (mqinfer_\w+) (\w+)", text.decode(), re.M):
            names = [f"{name}_bucket", f"{name}_sum"] if kind == "histogram" else [name]
            for one in names:
                found.setdefault(one, set())
    return found


def queries(told: Any) -> list[str]:
    if isinstance(told, dict):
        own = [told["expr"]] if "expr" in told else []
        return own + [one for value in told.values() for one in queries(value)]
    return [one for value in told for one in queries(value)] if isinstance(told, list) else []


@pytest.mark.parametrize("of", [app, small], ids=["all", "small"])
def test_every_metric_of_a_query_is_exported(of: App) -> None:
    known = exported()
    asked = [*queries(board(of)), *queries(rules(of))]
    own = json.loads((COMPOSE / "grafana" / "dashboards" / "mqinfer.json").read_text())
    for query in (*asked, *queries(own)):
        for name, labels in re.findall(r"(mqinfer_\w+)(\{[^}]*\})?", query):
            assert name in known, query
            if known[name]:
                assert set(re.findall(r"(\w+)=~?\"", labels)) <= known[name], query
        assert query.count("(") == query.count(")")
        assert query.count("{") == query.count("}")


def test_they_follow_the_app() -> None:
    all_of, few = json.dumps(board(app)), json.dumps(board(small))
    for name in ("model", "sink", "gateway"):
        assert f"mqinfer_{name}_" in all_of
        assert f"mqinfer_{name}_" not in few
    found = {
        rule["labels"].get("stage") for group in rules(app)["groups"] for rule in group["rules"]
    }
    sinks = {"sink-traced_grade", "sink-mqinfer_dead_letters"}
    assert found == {"cut", "grade", "shape", "report", *sinks, None}
    numbers = [panel["id"] for panel in board(app)["panels"]]
    assert len(numbers) == len(set(numbers))


def test_the_command(shell: Shell) -> None:
    name = "tests.support.traced_app:small"
    code, out, _ = shell.run("boards", name)
    assert (code, json.loads(out)) == (0, board(small))
    code, _, _ = shell.run("boards", name, "--rules", "-o", "rules.yml")
    assert (code, json.loads(Path("rules.yml").read_text())) == (0, rules(small))
