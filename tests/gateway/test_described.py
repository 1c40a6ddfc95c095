"""The description of an app's endpoints, and what is wrong with a body, from the types alone."""

from __future__ import annotations

import datetime
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta
from numpy.typing import NDArray

from mqinfer import App, Blob, Message
from mqinfer.gateway import openapi, page
from mqinfer.gateway.problems import Problem
from mqinfer.gateway.validation import Validation
from tests.support.gateway_app import app

wide = App("wide")


class Inner(msgspec.Struct, tag="inner"):
    count: Annotated[int, Meta(ge=0)]


class Other(msgspec.Struct, tag="other"):
    text: str | None = None


class Wide(Message):
    """Of everything a message may have."""

    name: Annotated[str, Meta(pattern="^[a-z]+$")]
    when: datetime.datetime
    picture: Blob
    pictures: list[Blob] = msgspec.field(default_factory=list)
    numbers: NDArray[np.float32] | None = None
    inner: Inner | None = None
    either: Inner | Other | None = None
    pair: tuple[int, str] = (0, "")
    bag: dict[str, float] = msgspec.field(default_factory=dict)
    anything: Any = None
    below: Annotated[float, Meta(lt=1, gt=0)] = 0.5


class Request(Message):
    """A type of a name that the gateway uses, too."""

    status: str


@wide.stage
async def answer(one: Wide) -> Request: ...


wide.endpoint("wide", Wide, answers=Request)


@pytest.mark.parametrize("one", [app, wide])
@pytest.mark.parametrize("keys", [False, True])
def test_the_description_is_valid(one: App, keys: bool) -> None:
    from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator

    found = msgspec.json.decode(msgspec.json.encode(openapi.document(one, keys=keys)))
    OpenAPIV31SpecValidator(found).validate()
    OpenAPIV30SpecValidator(page.in_3_0(found)).validate()


def test_everything_that_is_wrong_is_told_with_its_place() -> None:
    validation = Validation(wide)
    body = {
        "input": {
            "name": "A",
            "picture": {"url": 1},
            "pictures": ["a", {"base64": "AA==", "more": 1}],
            "inner": {"type": "inner", "count": -1},
            "pair": [1],
            "bag": {"a/b": "x"},
            "below": 1,
        },
        "extra": 1,
    }
    found = {one.pointer for one in validation.faults("wide", body)}
    assert found == {
        "/extra",
        "/input/when",
        "/input/name",
        "/input/picture/url",
        "/input/pictures/1",
        "/input/pictures/1/more",
        "/input/inner/count",
        "/input/pair",
        "/input/bag/a~1b",
        "/input/below",
    }


def test_a_long_value_is_not_sent_back() -> None:
    (fault,) = Validation(app).faults("grade", {"input": {"name": "x" * 10_000}})
    assert len(fault.detail) <= 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_whatever_a_body_is_faults_are_found(body: Any) -> None:
    problem = Validation(app).problem("grade", body, ValueError("no"), "")
    assert isinstance(problem, Problem)
    assert problem.status == 422
    assert problem.errors
