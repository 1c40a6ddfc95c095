"""What `app.endpoint` refuses, and what an app with endpoints has."""

from __future__ import annotations

from typing import Any

import pytest

from mqinfer import App, Message, Row, plan
from mqinfer.errors import WiringError
from mqinfer.message import MessageMeta
from mqinfer.operate.check import check_wiring


class Photo(Message):
    n: int


class Grade(Message):
    n: int


class Stored(Row, table="stored", order_by=("n",)):
    n: int


class Other(Message):
    n: int


class Foreign(Message, foreign_ids=False):
    n: int


def graded() -> App:
    app = App("plants", max_age="1h")

    @app.stage
    async def grade(photo: Photo) -> Grade | Stored:
        return Grade(photo.n)

    return app


@pytest.mark.parametrize(
    ("arguments", "options", "reason"),
    [
        (("a b", Photo), {}, "a name is letters, digits, - and _"),
        (("x" * 41, Photo), {}, "at most 40"),
        (("grade", Photo), {}, "declared twice"),
        (("new", int), {}, "second argument is int, which is no message type"),
        (("new", Photo), {"answers": ()}, "answers= names no type"),
        (("new", Photo), {"answers": (Grade, "Grade")}, "answers= is 'Grade', which is no message"),
        (("new", Stored), {}, "Stored is a Row"),
        (("new", Foreign), {}, "foreign_ids=False"),
        (("new", Photo), {"deadline": "soon"}, "deadline='soon' is no duration"),
        (("new", Photo), {"deadline": "0"}, "must be more than 0 and less than max_age"),
        (("new", Photo), {"deadline": "2h"}, "less than max_age of the app, 3600 s"),
        (("new", Photo), {"keep": "1ms"}, "a second at least"),
    ],
)
def test_what_cannot_be_declared(
    arguments: tuple[Any, ...], options: dict[str, Any], reason: str
) -> None:
    app = graded()
    app.endpoint("grade", Photo, answers=(Grade, Stored))
    with pytest.raises(WiringError) as caught:
        app.endpoint(*arguments, **{"answers": Grade, **options})
    assert reason in str(caught.value)
    assert list(app.endpoints) == ["grade"]


def test_what_the_stages_cannot_answer_is_said_with_all_other_mistakes() -> None:
    app = graded()
    app.endpoint("grade", Photo, answers=(Grade, Stored))
    assert check_wiring(app)[0].problems == []
    app.endpoint("other", Other, answers=Grade)
    app.endpoint("wrong", Photo, answers=(Grade, Other))
    problems = check_wiring(app)[0].problems
    assert len(problems) == 2
    assert "endpoint other: no stage reads Other" in problems[0]
    assert "answers=Other, which nothing below Photo writes; what comes of it is Gra" in problems[1]
    with pytest.raises(WiringError, match="endpoint other"):
        plan.tasks(app)


def test_an_app_without_endpoints_has_nothing_of_them() -> None:
    app = graded()
    assert len(plan.stream_specs(app)) == 2
    assert [task.name for task in plan.tasks(app) if task.name.startswith("mqinfer-")] == []
    app.endpoint("grade", Photo, answers=Grade)
    names = [task.name for task in plan.tasks(app) if task.name.startswith("mqinfer-")]
    assert names == ["mqinfer-tracker", "mqinfer-requests-grade", "mqinfer-jobs"]
    streams = [spec.name for spec in plan.stream_specs(app)]
    assert streams[2:] == ["plants-settled", "plants-requests"]
    for name in ("requests", "plants-requests"):
        with pytest.raises(WiringError):
            App(name)


def test_no_type_has_the_subject_that_roots_of_requests_have() -> None:
    app = graded()
    root = app.endpoint("grade", Photo, answers=Grade).root
    with pytest.raises(WiringError, match="subject"):
        MessageMeta("Odd", (Message,), {"__module__": __name__}, subject=root)
