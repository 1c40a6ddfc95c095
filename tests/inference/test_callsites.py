"""Where a handler calls a model: what is found in the source, and what is not judged."""

from types import SimpleNamespace
from typing import Any

from mqinfer import App
from mqinfer.inference.callsites import ModelCall, model_calls

app = App("plants")
detector = app.model("detector")
rust = app.model("rust")
graders = {"rust": rust, "spots": app.model("spots")}
spots = graders["spots"]
holder = SimpleNamespace(model=rust)


def found(handler: Any) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The models and the input names of each call."""
    return [
        (tuple(model.name for model in call.models), call.keywords) for call in model_calls(handler)
    ]


async def help_with(image: Any) -> Any:
    return await detector(image=image)


async def test_a_plain_call_has_names_and_a_place() -> None:
    async def handler(image: Any) -> None:
        await detector(image=image)

    (call,) = model_calls(handler)
    line = handler.__code__.co_firstlineno + 1
    assert call == ModelCall((detector,), ("image",), False, False, f"test_callsites.py:{line}")


async def test_answers_taken_in_parts_are_told_apart() -> None:
    async def handler(image: Any) -> None:
        async for _ in graders["rust"].stream(a=image):
            pass
        print([part async for part in detector.stream(b=image)])
        await detector(c=image)

    calls = sorted(model_calls(handler), key=lambda call: call.keywords)
    assert [call.streamed for call in calls] == [True, True, False]
    assert [call.models for call in calls[1:]] == [(detector,), (detector,)]


async def test_arguments_without_names_and_more_inputs_are_told() -> None:
    async def handler(image: Any, others: Any) -> None:
        await detector(image, **others)

    (call,) = model_calls(handler)
    assert (call.keywords, call.positional, call.open) == ((), True, True)


async def test_through_containers_loops_names_attributes_and_helpers() -> None:
    async def handler(image: Any) -> None:
        await graders["rust"](a=image)
        for name, grader in graders.items():
            print(name, await grader(b=image))
        one = detector
        await one(c=image)
        await holder.model(d=image)
        await help_with(image)

    assert sorted(found(handler), key=lambda call: call[1]) == [
        (("rust", "spots"), ("a",)),
        (("rust", "spots"), ("b",)),
        (("detector",), ("c",)),
        (("rust",), ("d",)),
        (("detector",), ("image",)),
    ]


async def test_what_comes_out_of_a_function_is_not_judged() -> None:
    async def handler(choose: Any, image: Any) -> None:
        await choose()(image=image)
        print(image)

    assert found(handler) == []


def test_what_has_no_source_is_not_judged() -> None:
    assert found(len) == []
    scope: dict[str, Any] = {"detector": detector}
    exec("async def handler(x): await detector(x=x)", scope)
    assert found(scope["handler"]) == []


async def test_helpers_that_call_each_other_end() -> None:
    assert found(ping) == [(("rust",), ("x",)), (("spots",), ("x",))]


async def ping(x: Any) -> None:
    await rust(x=x)
    await pong(x)


async def pong(x: Any) -> None:
    await spots(x=x)
    await ping(x)
