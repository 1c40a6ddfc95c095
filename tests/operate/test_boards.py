"""Boards and rules follow the app, and ask for nothing that mqinfer does not export."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import mqinfer
from docsite import facts
from mqinfer import App
from mqinfer.gateway.counting import Counting
from mqinfer.monitor.gauges import ACCURACY, ALARMS, EVIDENCE, LOOKED, PSI, ROWS
from mqinfer.observe import Metrics
from mqinfer.operate.alerts import Group, Running, Thresholds, rules
from mqinfer.operate.boards import board
from mqinfer.search.counting import Counting as Asked
from mqinfer.search.generations import Generation
from mqinfer.search.protocol import ShardState
from tests.support.cli import Shell
from tests.support.search_app import app as searched
from tests.support.traced_app import One, app, small

COMPOSE = Path(__file__).parents[2] / "compose"


def exported() -> dict[str, set[str]]:
    """The series that workers and gateways show, and the labels of each."""
    metrics, counting = Metrics("a"), Counting("a")
    metrics.stage("s").watch(type("Some", (), {"in_flight": 0, "bytes_in_flight": 0})(), lambda: 0)
    metrics.sink("t").inserted(1, 0.1)
    metrics.request("m", "1", 1, 0.1)
    counting.answered["GET /", 200] += 1
    metrics.queueing = False
    asked = Asked("a")
    asked.searches["i", "m"].refused += 1
    asked.searched["i", "m"] = Generation(number=1, shards=1)
    held = asked.render([ShardState("i", "m", 1, 0, True, 0, 1, 0, 4, [])])
    found: dict[str, set[str]] = {}
    for text in (metrics.render(), counting.render(), held):
        for name, labels in re.findall(r"^(mqinfer_\w+)(?:\{(.*)\})? ", text.decode(), re.M):
            found.setdefault(name, set()).update(re.findall(r"(\w+)=", labels))
        for name, kind in re.findall(r"^# TYPE (mqinfer_\w+) (\w+)", text.decode(), re.M):
            parts = ("bucket", "sum", "count")
            names = [f"{name}_{part}" for part in parts] if kind == "histogram" else [name]
            for one in names:
                found.setdefault(one, set())
    return found


def queries(told: Any) -> list[str]:
    if isinstance(told, dict):
        own = [told["expr"]] if "expr" in told else []
        return own + [one for value in told.values() for one in queries(value)]
    return [one for value in told for one in queries(value)] if isinstance(told, list) else []


def deployed(of: App) -> Running:
    group = Group("all", tuple(of.stages), 1, 3, 60.0)
    return Running((group,), dict.fromkeys(of.indexes, 2))


@pytest.mark.parametrize("of", [app, small, searched], ids=["all", "small", "index"])
def test_every_metric_of_a_query_is_exported(of: App) -> None:
    known = exported()
    running = deployed(of) if of.stages else Running((), dict.fromkeys(of.indexes, 2))
    asked = [*queries(board(of, running)), *queries(rules(of, None, running))]
    own = json.loads((COMPOSE / "grafana" / "dashboards" / "mqinfer.json").read_text())
    for query in (*asked, *queries(own)):
        for name, labels in re.findall(r"(mqinfer_\w+)(\{[^}]*\})?", query):
            assert name in known, query
            if known[name]:
                assert set(re.findall(r"(\w+)(?:=|!=|=~|!~)\"", labels)) <= {*known[name], "run"}, (
                    query
                )
        assert query.count("(") == query.count(")")
        assert query.count("{") == query.count("}")


def test_the_page_of_metrics_has_every_name() -> None:
    package = Path(mqinfer.__file__).parent
    exposing = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "prometheus_client" in path.read_text()
    }
    # One that is new here belongs on the page (`docsite/facts.py`), and into `exported`.
    assert exposing == {
        *("metrics.py", "gateway/counting.py", "search/counting.py", "monitor/gauges.py"),
    }
    page = facts.metrics()
    named = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in exported()} <= named
    assert {EVIDENCE, ALARMS, PSI, ROWS, ACCURACY, LOOKED, "nv_inference_count"} <= named
    written = [*rules(app, None, deployed(app))["groups"], *rules(searched)["groups"]]
    assert {rule["alert"] for group in written for rule in group["rules"]} <= named
    assert "MqinferFewReplicas" in named


def test_an_app_whose_stream_keeps_everything_has_nothing_to_lose() -> None:
    kept = App("kept", max_age=0)

    @kept.stage(timeout=1800)
    async def work(one: One) -> None:
        pass

    (group,) = rules(kept)["groups"]
    found = {
        rule["alert"]: rule for rule in group["rules"] if rule["labels"].get("stage") == "work"
    }
    assert "MqinferWillLose" not in found
    assert found["MqinferBehind"]["for"] == "1800s"  # what one handling may take


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


def test_what_is_deployed_sets_thresholds() -> None:
    told = Thresholds(behind=120, failing=0.25, dead_letters=5, labels={"team": "fields"})
    (group,) = rules(app, told, deployed(app))["groups"]
    assert all(rule["labels"]["team"] == "fields" for rule in group["rules"])
    found = {rule["alert"]: rule for rule in group["rules"]}
    assert found["MqinferBehind"]["for"] == "120s"
    assert found["MqinferFailing"]["expr"].endswith("> 0.25")
    assert found["MqinferDeadLetters"]["expr"].endswith("> 5")
    assert found["MqinferFewProcesses"]["expr"].endswith("< 1")
    assert found["MqinferOverTarget"]["labels"]["group"] == "all"
    assert "> 60 and count(" in found["MqinferOverTarget"]["expr"]
    legends = json.dumps(board(app, deployed(app)))
    assert "all (1 to 3)" in legends
    assert "all (target 60 s)" in legends
    (group,) = rules(searched, None, Running((), {"pictures": 2}))["groups"]
    names = [rule["alert"] for rule in group["rules"] if rule["labels"].get("index") == "pictures"]
    assert names == [
        f"Mqinfer{one}" for one in ("IndexNotHeld", "ShardMissing", "IndexBehind", "FewReplicas")
    ]


def test_the_command(shell: Shell) -> None:
    name = "tests.support.traced_app:small"
    code, out, _ = shell.run("boards", name)
    assert (code, json.loads(out)) == (0, board(small))
    code, _, _ = shell.run("boards", name, "--rules", "-o", "rules.yml")
    assert (code, json.loads(Path("rules.yml").read_text())) == (0, rules(small))
