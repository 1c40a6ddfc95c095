"""The benchmarks run and count right; what they measure is not judged here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from math import nan
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks import report, stage_loop
from benchmarks.debian import NotProvidedError, provide
from benchmarks.results import Figure, Goal, Options, Result, Row

ROOT = Path(__file__).parents[2]
# One of each kind, as each is a process or two of its own for each size.
ROWS = {"hand-written", "mqinfer", "mqinfer, uvloop, 2 processes", "naive"}
LEFT_OUT = "FastStream PullSub"


def test_stage_loop_runs_and_its_figures_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found, chart = tmp_path / "bench.json", tmp_path / "bench.png"
    some = [one for one in stage_loop.CONTENDERS if one.name in {*ROWS, LEFT_OUT}]
    monkeypatch.setattr(stage_loop, "CONTENDERS", some)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    words = [
        "--only=stage_loop",
        "--scale=0.002",
        "--repeat=1",
        "--rows=hand-written,MQinfer,naive",
    ]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words, f"--json={found}", f"--chart={chart}"])
    assert command.main() == 0
    text = capsys.readouterr().out
    assert "of the hand-written loop, 200 B (goal: at least 0.95)" in text
    assert "not to be quoted" in text

    facts = json.loads(found.read_text())
    assert facts["failed"] == {}
    assert facts["machine"]["cores"] >= 1
    assert facts["machine"]["packages"]["nats-py"].startswith("2.16")
    (result,) = facts["results"]
    assert {row["name"] for row in result["rows"]} == ROWS
    for row in result["rows"]:
        assert list(row["figures"]) == [
            "200 B, messages/s",
            "200 B, processor µs",
            "10 KB, messages/s",
            "10 KB, processor µs",
        ]
        for figure in row["figures"].values():
            assert len(figure["samples"]) == 1
            assert 0 < figure["least"] <= figure["median"] <= figure["most"]
    goals = {goal["what"]: goal for goal in result["goals"]}
    assert goals["of the hand-written loop, 200 B"]["found"] > 0
    assert goals["of the hand-written loop, 200 B"]["met"] in (True, False)
    # What was not asked for was not measured, and is not called met.
    assert goals["times FastStream"]["found"] is None
    assert goals["times FastStream"]["met"] is None
    assert chart.read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / ".cache").iterdir()) == []


async def test_one_that_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(options: Options) -> Result:
        raise RuntimeError("no such thing")

    async def fine(options: Options) -> Result:
        options.say("on it")
        rows = [Row("mqinfer", {"speed": Figure((1.0, 3.0, 2.0), "m/s")})]
        return Result("fine", "as it should be", rows, [Goal("of light", 2.0, 1.0, True)])

    use(monkeypatch, broken=broken, fine=fine)
    monkeypatch.chdir(tmp_path)
    arguments = command.parse(
        [
            *("--all", "--json=found/bench.json", "--markdown=found/bench.md"),
            "--chart=found/bench.png",
        ]
    )
    console = Console(record=True, width=120)
    assert await command.bench(arguments, console) == 1
    text = console.export_text()
    assert "broken: RuntimeError: no such thing" in text
    assert "2.00 (1.00 to 3.00)" in text
    assert "missed  2.00 of light (goal: at most 1.00)" in text
    page = (tmp_path / "found/bench.md").read_text()
    assert "## fine: as it should be\n\n| | speed, m/s |" in page
    assert "| mqinfer | 2.00 (1.00 to 3.00) |" in page
    assert "- missed 2.00 of light (goal: at most 1.00)" in page
    facts = json.loads((tmp_path / "found/bench.json").read_text())
    assert facts["failed"] == {"broken": "RuntimeError: no such thing"}
    assert [result["name"] for result in facts["results"]] == ["fine"]
    assert facts["results"][0]["rows"][0]["figures"]["speed"]["median"] == 2.0


async def test_the_usual_ones_are_measured_unless_all_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def named(name: str) -> Callable[[Options], object]:
        async def measure(options: Options) -> Result:
            measured.append(name)
            return Result(name, "", [], [])

        return measure

    use(monkeypatch, usual=named("usual"), further=named("further"))
    monkeypatch.chdir(tmp_path)
    for words in ([], ["--all"], ["--only=further"]):
        assert await command.bench(command.parse(words), Console(record=True)) == 0
    assert measured == ["usual", "usual", "further", "further"]


def use(monkeypatch: pytest.MonkeyPatch, **benchmarks: Callable[[Options], object]) -> None:
    """Let these be the benchmarks, of which the first is a usual one."""
    monkeypatch.setattr(command, "NAMES", tuple(benchmarks))
    monkeypatch.setattr(command, "USUAL", tuple(benchmarks)[:1])
    for name, measure in benchmarks.items():
        module = ModuleType(name)
        module.measure = measure  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, f"benchmarks.{name}", module)


def test_ratios_are_taken_within_a_repetition() -> None:
    # The machine was half as fast for the second one.
    ours, other = Figure((90.0, 45.0, 80.0), "1/s"), Figure((100.0, 50.0, 100.0), "1/s")
    assert ours.times(other) == 0.9
    assert ours.median / other.median == 0.8


def test_what_could_not_be_measured_is_not_met() -> None:
    assert not Goal("times", nan, 1.0).met
    assert not Goal("times", nan, 1.0, at_most=True).met
    assert "not measured" in report.goal_line(Goal("times", nan, 1.0))


def test_outputs_that_are_missing_or_there_twice_are_errors() -> None:
    stage_loop._check("it", 3, [2, 0, 1])
    with pytest.raises(RuntimeError, match="of 3 messages 2 came out, 0 of them again"):
        stage_loop._check("it", 3, [0, 1])
    with pytest.raises(RuntimeError, match="of 3 messages 2 came out, 1 of them again"):
        stage_loop._check("it", 3, [0, 1, 1])


async def test_a_program_that_cannot_be_had_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotProvidedError, match="install no-such-server"):
        await provide("usr/bin/no-such-server", "no-such-server")
