"""What a join may not be, and the texts that say so; what tools make of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from mqinfer import App, Context, Message, Row, plan
from mqinfer.cli.graph import as_text
from mqinfer.completion import roots
from mqinfer.completion.waited import TRACKER, recorded
from mqinfer.errors import ConfigurationError, WiringError
from mqinfer.operate import check, status
from mqinfer.operate.graph import graph_of
from mqinfer.operate.permissions import permissions
from mqinfer.settings import Settings
from mqinfer.testing import Harness


class Photo(Message):
    n: int


class Leaf(Message):
    n: int


class Grade(Row):
    n: int


class Report(Message):
    n: int


class Alone(Message):
    n: int


def an_app() -> App:
    app = App("plants")

    @app.stage
    async def cut(photo: Photo) -> list[Leaf]:
        return [Leaf(photo.n)]

    @app.stage
    async def grade(leaf: Leaf) -> Grade:
        return Grade(leaf.n)

    @app.stage
    async def other(report: Report) -> None:
        return None

    return app


async def good(photo: Photo, grades: list[Grade], ctx: Context) -> Report: ...


async def no_list(photo: Photo, grades: Grade) -> Report: ...


async def another_root(leaf: Leaf, grades: list[Grade]) -> Report: ...


async def only_root(photo: Photo) -> Report: ...


async def no_return(photo: Photo, grades: list[Grade]): ...  # type: ignore[no-untyped-def]


async def no_context(photo: Photo, grades: list[Grade], ctx: int) -> Report: ...


async def of_a_row(photo: Grade, grades: list[Grade]) -> Report: ...


async def of_nobody(photo: Alone, grades: list[Grade]) -> Report: ...


async def of_alone(photo: Photo, grades: list[Alone]) -> Report: ...


async def above(leaf: Leaf, leaves: list[Leaf]) -> Report: ...


def plain(photo: Photo, grades: list[Grade]) -> Report:
    return Report(photo.n)


@pytest.mark.parametrize(
    ("handler", "root", "of", "options", "text"),
    [
        (no_list, Photo, Grade, {}, "annotate 'grades' with list[Grade]"),
        (another_root, Photo, Grade, {}, "annotate 'leaf' with Photo"),
        (only_root, Photo, Grade, {}, "takes the root, the list of its outputs"),
        (no_return, Photo, Grade, {}, "annotate what it returns"),
        (no_context, Photo, Grade, {}, "the third parameter is the Context"),
        (plain, Photo, Grade, {}, "its handler is an `async def`"),
        (of_a_row, Grade, Grade, {}, "Grade is a Row, which ends in its table"),
        (of_nobody, Alone, Grade, {}, "no stage reads Alone"),
        (of_alone, Photo, Alone, {}, "of=Alone, which nothing below Photo writes; what comes of"),
        (above, Leaf, Leaf, {}, "of=Leaf, which nothing below Leaf writes"),
        (good, Photo, (), {}, "of= names no type"),
        (good, Photo, (Grade, int), {}, "of= is int, which is no message type"),
        (good, "Photo", Grade, {}, "the first argument is 'Photo', which is no message type"),
        (good, Photo, Grade, {"deadline": "8d"}, "less than max_age of the app, 604800 s"),
        (good, Photo, Grade, {"deadline": "soon"}, "deadline="),
        (good, Photo, Grade, {"deadline": 0}, "more than 0"),
        (good, Photo, Grade, {"attempt": 3}, "attempt= is no keyword"),
        (good, Photo, Grade, {"name": "cut"}, "declared twice"),
        (good, Photo, Grade, {"name": "mqinfer-x"}, "not beginning with"),
    ],
)
def test_what_is_refused(
    handler: Callable[..., Any], root: Any, of: Any, options: dict[str, Any], text: str
) -> None:
    app = an_app()
    app.join(root, of=of, **options)(handler)
    _, problems = app.resolve()
    assert any(text in str(problem) for problem in problems), [str(one) for one in problems]
    with pytest.raises(WiringError):
        _ = app.stages


def test_a_root_that_leads_back_to_itself_is_refused() -> None:
    app = an_app()

    @app.stage
    async def again(leaf: Leaf) -> Photo: ...

    app.join(Photo, of=Grade)(good)
    _, problems = app.resolve()
    assert "Photo leads back to itself" in str(problems[0])


def test_names_that_are_taken() -> None:
    for name in ("settled", "x-settled"):
        with pytest.raises(WiringError):
            App(name)


def test_the_tracker_is_a_task_that_can_be_named() -> None:
    app = an_app()
    with pytest.raises(ConfigurationError, match="has no stage mqinfer-tracker"):
        plan.tasks(app, [TRACKER])
    app.join(Photo, of=Grade, deadline="1h", name="report")(good)
    (task,) = plan.tasks(app, [TRACKER])
    assert task.tracker
    names = [task.name for task in plan.tasks(app)]
    assert names[-2:] == [TRACKER, "mqinfer-deadline-report"]
    assert set(recorded(app)) == {"cut", "grade"}
    assert [one.name for one in plan.downstream(app, task)] == ["report"]
    (report,) = plan.tasks(app, ["report"])
    assert {one.name for one in plan.upstream(app, [report])} == {"report", TRACKER, "cut", "grade"}
    (deadline,) = plan.tasks(app, ["mqinfer-deadline-report"])
    (spec,) = plan.consumer_specs(app, deadline)
    assert spec.max_ack_pending == 512


def test_a_graph_shows_what_a_join_waits_for() -> None:
    app = an_app()
    app.join(Photo, of=Grade, name="report")(good)
    drawn = json.loads(as_text(graph_of(app)))
    names = {node["id"]: node["name"] for node in drawn["nodes"]}
    assert "joined.report" not in names.values()
    edges = {(names[edge["source"]], names[edge["target"]]) for edge in drawn["edges"]}
    assert {("photo", "report"), ("grade", "report")} <= edges
    (join,) = [node for node in drawn["nodes"] if node["note"] == "join"]
    assert join["name"] == "report"


def test_permissions_are_those_of_what_is_run() -> None:
    app = an_app()
    assert not [one for one in permissions(app).publish if "settled" in one or "roots" in one]
    app.join(Photo, of=Grade, deadline="1h", name="report")(good)
    records = roots.subject(app, None)
    cut = permissions(app, ["cut"]).publish
    assert records in cut
    assert "$KV.plants-roots.>" not in cut
    assert records not in permissions(app, ["other"]).publish
    tracker = permissions(app, [TRACKER]).publish
    assert {"$KV.plants-roots.>", "plants.joined.report"} <= set(tracker)
    assert records not in tracker
    of_run = permissions(app, replays=["r1"]).publish
    assert "$JS.ACK.plants-settled.run-r1-mqinfer-tracker.>" in of_run
    assert "settled.plants.run.r1.*" in of_run


async def test_status_and_check_know_of_it(nats: Settings) -> None:
    app = App("plants")

    @app.stage
    async def cut(photo: Photo) -> list[Leaf]:
        return [Leaf(photo.n)]

    @app.join(Photo, of=Leaf, deadline="1h")
    async def report(photo: Photo, leaves: list[Leaf]) -> Report:
        return Report(photo.n)

    async with Harness(app, nats) as harness:
        streams = harness.services.streams
        assert streams is not None
        found, _ = check.check_wiring(app)
        await check.check_streams(app, streams, found)
        assert found.problems == []
        await harness.drain()
        await harness.publish(Photo(1))
        await harness.drain()
        seen = await status.gather(app, streams)
        tasks = {task.name: task for task in seen.tasks}
        assert tasks[TRACKER].exists
        assert tasks[TRACKER].lag == 0
        assert tasks["report"].settled == 1
        assert tasks["mqinfer-deadline-report"].lag == 1  # a root whose deadline has not come
        assert seen.orphans == ()
