"""The wiring in annotations: every shape of handler, and every mistake with its text."""

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator, Sequence
from dataclasses import FrozenInstanceError
from typing import Annotated, Any, List, Optional, Union  # noqa: UP035 - users write these too

import pytest

from mqinfer.app import App
from mqinfer.context import Context
from mqinfer.errors import WiringError
from mqinfer.message import Message, Rejected, Row
from mqinfer.signature import Signature, read_signature
from mqinfer.stage import Limits, Stage, read_limits


class In(Message):
    x: int = 0


class Out(Message):
    x: int = 0


class Grade(Row):
    x: int = 0


def signature(handler, **scope):
    return read_signature("crop", handler, scope)


def refused(handler):
    """The text of the error, which must be one line that names the stage."""
    with pytest.raises(WiringError) as error:
        signature(handler)
    text = str(error.value)
    assert text.startswith("stage crop: ")
    assert "\n" not in text
    return text.removeprefix("stage crop: ")


# --- shapes ---------------------------------------------------------------------------------------


def returning(annotation, *, kind="coroutine", reads=In):
    """A handler of a kind with a return annotation."""
    if kind == "coroutine":

        async def handler(message): ...
    elif kind == "async_generator":

        async def handler(message):
            yield
    elif kind == "generator":

        def handler(message):
            yield
    else:

        def handler(message): ...

    handler.__annotations__ = {"message": reads, "return": annotation}
    return handler


@pytest.mark.parametrize("kind", ["coroutine", "function"])
@pytest.mark.parametrize(
    ("annotation", "writes"),
    [
        (None, ()),
        (type(None), ()),
        (Out, (Out,)),
        (Grade, (Grade,)),
        (Out | None, (Out,)),
        (Optional[Out], (Out,)),  # noqa: UP045
        (Union[Out, Grade], (Out, Grade)),  # noqa: UP007
        (Out | Grade | None, (Out, Grade)),
        (list[Out], (Out,)),
        (List[Out], (Out,)),  # noqa: UP006
        (list[Out | Grade], (Out, Grade)),
        (list[Out] | Grade, (Out, Grade)),
        (tuple[Out, Grade], (Out, Grade)),
        (tuple[Out, ...], (Out,)),
        (tuple[Out, Out], (Out,)),
        (Sequence[Out], (Out,)),
        (Iterable[Out], (Out,)),
        ("Out | None", (Out,)),
        (Annotated[Out, "the leaf"], (Out,)),
    ],
)
def test_what_a_handler_may_return(annotation, writes, kind):
    found = signature(returning(annotation, kind=kind))
    assert found == Signature(reads=In, writes=writes, batch=False, wants_context=False, kind=kind)


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (AsyncIterator[Out | Grade], "async_generator"),
        (AsyncGenerator[Out | Grade, None], "async_generator"),
        (Iterator[Out | Grade], "generator"),
        (Generator[Out | Grade, None, None], "generator"),
    ],
)
def test_what_a_handler_may_yield(annotation, kind):
    found = signature(returning(annotation, kind=kind))
    assert found.writes == (Out, Grade)
    assert found.kind == kind


@pytest.mark.parametrize("kind", ["coroutine", "function"])
@pytest.mark.parametrize("reads", [list[In], Sequence[In]])
@pytest.mark.parametrize(
    ("annotation", "writes"),
    [
        (list[Out | Rejected], (Out,)),
        (list[Out | None], (Out,)),
        (Sequence[Out], (Out,)),
        (None, ()),
        (list[Rejected | None], ()),
        (list[list[Out] | None], (Out,)),
    ],
)
def test_batches(reads, annotation, writes, kind):
    found = signature(returning(annotation, kind=kind, reads=reads))
    assert found.batch
    assert found.reads is In
    assert found.writes == writes


def test_the_context_is_optional():
    async def typed(message: In, ctx: Context) -> None: ...
    async def named(message: In, ctx: "Context") -> None: ...
    async def bare(message: In, ctx) -> None: ...
    async def none(message: In) -> None: ...
    async def strict(message: In, /, ctx: Context) -> None: ...

    assert all(signature(handler).wants_context for handler in (typed, named, bare, strict))
    assert not signature(none).wants_context


def test_names_of_the_scope_and_methods():
    class Local(Message):
        pass

    async def handler(message: "Local") -> "Local": ...

    class Holder:
        async def method(self, message: In) -> Out: ...

    assert signature(handler, Local=Local).reads is Local
    assert signature(Holder().method).reads is In


def test_a_decorated_handler_is_what_it_wraps():
    async def handler(message: In, ctx: Context) -> Out: ...

    @functools.wraps(handler)
    async def outer(*args):
        return await handler(*args)

    assert signature(outer) == signature(handler)


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reads", [int, Any, list[int], In | Out, list, "int", dict[str, In]])
def test_reading_something_else(reads):
    text = refused(returning(None, reads=reads))
    assert text.startswith("annotate 'message' with the Message it reads, not with ")


def test_reading_or_writing_the_base_itself():
    assert refused(returning(None, reads=Message)) == "reads Message itself; derive a type from it"
    assert refused(returning(Row)) == "returns Row itself; derive a type from it"
    assert refused(returning(list[Message])) == "returns Message itself; derive a type from it"


def test_no_annotations():
    async def nothing(message): ...
    async def no_return(message: In): ...

    assert "not with nothing" in refused(nothing)
    assert refused(no_return) == (
        "annotate what it returns (-> Out, Out | None, AsyncIterator[Out], None)"
    )


@pytest.mark.parametrize("annotation", [int, Any, dict[str, Out], str, Out | int, list[int], list])
def test_returning_something_else(annotation):
    assert "is no Message or Row; declare it as one, or return None" in refused(
        returning(annotation)
    )


def test_a_stream_of_what():
    assert refused(returning(typing.AsyncIterator)) == (
        "say what AsyncIterator is of: AsyncIterator[Out]"
    )
    assert "[Out]" in refused(returning(List))  # noqa: UP006


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        ("Missing", "an annotation names 'Missing', which is not defined"),
        ("In.nothing", "an annotation cannot be read: type object 'In' has no attribute"),
        ("1 +", "an annotation cannot be read: "),
    ],
)
def test_annotations_that_cannot_be_read(annotation, text):
    assert refused(returning(annotation)).startswith(text)


def test_parameters():
    async def none() -> None: ...
    async def three(message: In, ctx: Context, more: int) -> None: ...
    async def default(message: In, ctx: Context, more: int = 3) -> None: ...
    async def star(message: In, *more: Any) -> None: ...
    async def stars(message: In, **more: Any) -> None: ...
    async def keyword(message: In, *, ctx: Context) -> None: ...

    for handler in (none, three, default, star, stars, keyword):
        assert refused(handler).startswith("a handler takes a message and, if it likes, a context")

    async def other(message: In, size: int) -> None: ...

    assert refused(other).startswith("the second parameter is the Context, not int; what else")


def test_batch_mistakes():
    text = refused(returning(AsyncIterator[Out], kind="async_generator", reads=list[In]))
    assert text == "a batch handler returns a list; it cannot yield"
    assert "returns a list with one entry for each message" in refused(
        returning(Out, reads=list[In])
    )
    assert "one entry for each" in refused(returning(Out | None, reads=list[In]))


def test_what_is_no_function():
    class Callable:
        async def __call__(self, message: In) -> None: ...

    async def two(more, message: In) -> None: ...

    assert refused(Callable()) == "a handler is a function (def or async def), not a Callable"
    assert refused(functools.partial(two, 1)).endswith("not a partial")
    assert refused(Callable).endswith("not a type")
    assert "annotate" in refused(lambda message: None)


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"max_in_flight": 0}, "max_in_flight=0 must be at least 1"),
        ({"max_bytes": 10}, "max_bytes=10 must be at least 1024"),
        ({"timeout": 0}, "timeout=0 must be at least 0.001"),
        ({"attempts": 0}, "attempts=0 must be at least 1"),
        ({"ack_wait": 0.1}, "ack_wait=0.1 must be at least 0.3"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"batch_wait": -1}, "batch_wait=-1 must be at least 0.0"),
        ({"concurrency": 0}, "concurrency=0 must be at least 1, or None"),
        ({"max_downstream": 0}, "max_downstream=0 must be at least 1, or None"),
    ],
)
def test_limits_that_cannot_work(limits, text):
    with pytest.raises(WiringError, match=re.escape(text)):
        Limits(**limits)


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"attempts": "5"}, "attempts='5' must be a whole number"),
        ({"attempts": 2.5}, "attempts=2.5 must be a whole number"),
        ({"attempts": True}, "attempts=True must be a whole number"),
        ({"concurrency": "2"}, "concurrency='2' must be a whole number, or None"),
        ({"timeout": None}, "timeout=None must be a number"),
        ({"timeout": float("nan")}, "timeout=nan must be at least 0.001"),
        ({"backoff": 2}, "backoff=2 must be a mqinfer.Backoff"),
    ],
)
def test_limits_of_the_wrong_type(limits, text):
    with pytest.raises(WiringError, match=re.escape(text)):
        Limits(**limits)


def test_times_and_sizes_may_be_text():
    given = {"timeout": "2m", "ack_wait": "1m30s", "batch_wait": "50ms", "max_bytes": "1MiB"}
    assert read_limits("crop", given) == Limits(
        timeout=120.0, ack_wait=90.0, batch_wait=0.05, max_bytes=1024 * 1024
    )


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (
            {"timout": 3},
            "stage crop: timout= is no keyword of a stage; the limits are max_in_flight, max_bytes,"
            " concurrency, timeout, attempts, snooze_for, backoff, ack_wait, batch_size,"
            " batch_wait, max_downstream",
        ),
        ({"timeout": "soon"}, "stage crop: timeout='soon' is no duration: write seconds, or"),
        ({"max_bytes": "much"}, "stage crop: max_bytes='much' is no size: write bytes, or"),
        ({"attempts": 0}, "stage crop: attempts=0 must be at least 1"),
    ],
)
def test_limits_that_a_stage_refuses_when_the_wiring_is_read(limits, text):
    app = App("limits")

    @app.stage(name="crop", **limits)
    async def handler(message: In) -> None: ...

    (problem,) = app.resolve()[1]
    assert str(problem).startswith(text)


def test_the_keywords_of_a_stage_are_the_limits():
    """Both where type checkers look and where `help` does."""
    # These may be written as text.
    annotated = {field.name: field.type for field in dataclasses.fields(Limits)}
    for limit in ("timeout", "snooze_for", "ack_wait", "batch_wait", "max_bytes"):
        annotated[limit] += " | str"
    defaults = {field.name: field.default for field in dataclasses.fields(Limits)}
    for function in (App.stage, typing.get_overloads(App.stage)[1]):
        found = {
            name: parameter
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
        assert list(found) == ["name", "models", "lifespan", "early", "start", "later", *defaults]
        assert {name: found[name].default for name in defaults} == defaults
        assert {name: found[name].annotation for name in defaults} == annotated


def test_what_a_stage_says_of_itself_names_each_limit():
    told = set(re.findall(r"^ +(\w+):", inspect.getdoc(App.stage), re.MULTILINE))
    assert told >= Limits.__dataclass_fields__.keys()


async def test_a_handler_stays_what_it_was():
    class Local(Message):
        x: int = 1

    app = App("shapes")

    async def plain(message: Local) -> Local:
        return message

    assert app.stage(plain) is plain
    assert app.stage(name="again", timeout="5s")(plain) is plain
    assert app.stages["again"].reads is Local
    assert app.stages["again"].limits == Limits(timeout=5.0)
    assert await plain(Local()) == Local()


def test_stages_do_not_change():
    stage = Stage("crop", signature, signature(returning(Out)), Limits())
    assert (stage.reads, stage.writes) == (In, (Out,))
    with pytest.raises(FrozenInstanceError):
        stage.name = "other"
    with pytest.raises(FrozenInstanceError):
        stage.limits.attempts = 1


@pytest.mark.parametrize(
    "name", ["dead", "foo-dead", "a-ordered-leaf", "KV_a-state", "OBJ_a", "a.b"]
)
def test_an_app_is_not_called_as_a_stream_of_another(name):
    with pytest.raises(WiringError, match="an app's name"):
        App(name)


@pytest.mark.parametrize(
    "name", ["foo-dead-2", "undead", "a-ordered", "KV", "foo-runs", "foo-state"]
)
def test_an_app_may_be_called_otherwise(name):
    assert App(name).name == name
