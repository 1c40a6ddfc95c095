"""What a function's code refers to: as it is now, and what has no value yet is left out."""

from __future__ import annotations

from typing import Any

from mqinfer import App, Message
from mqinfer.inference.callsites import model_calls
from mqinfer.referred import referred

HERE = object()


class Photo(Message):
    n: int


class Object:
    async def handle(self, photo: Photo) -> None:
        photo.n + HERE  # type: ignore[operator]


def test_what_is_not_assigned_yet_is_left_out_and_found_later() -> None:
    app = App("later")

    @app.stage
    async def grade(photo: Photo) -> None:
        await model(x=photo.n)
        await gone(x=photo.n)  # noqa: F821 - it was deleted

    gone = app.model("gone")
    del gone
    assert app.stages["grade"].models == ()
    assert list(model_calls(grade)) == []
    assert referred(grade) == {}
    model = app.model("grader")
    assert referred(grade) == {"model": model}
    assert [call.models for call in model_calls(grade)] == [(model,)]


def test_a_stage_that_is_declared_before_its_model() -> None:
    def declared() -> App:
        app = App("before")

        @app.stage
        async def grade(photo: Photo) -> None:
            await model(x=photo.n)

        model = app.model("grader")
        return app

    app = declared()
    assert [model.name for model in app.stages["grade"].models] == ["grader"]


def test_what_comprehensions_and_inner_functions_use() -> None:
    async def handler(photo: Photo) -> list[Any]:
        def inner() -> object:
            return HERE

        return [Photo(n) for n in range(photo.n)] + [inner()]

    assert referred(handler).items() >= {"Photo": Photo, "HERE": HERE}.items()


def test_a_method_and_a_global_that_is_not_there() -> None:
    assert referred(Object().handle) == {"HERE": HERE}
    code = compile("async def f(photo):\n    return nowhere(photo)", "f", "exec")
    scope: dict[str, Any] = {}
    exec(code, scope)  # a global that nobody defines
    assert referred(scope["f"]) == {}
