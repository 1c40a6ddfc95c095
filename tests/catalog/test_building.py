"""The app of a `models.toml`: asked by a client and by HTTP, refused, rejected, broken."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mqinfer import App, MqinferError
from mqinfer.catalog import app_of
from mqinfer.cli.load import load_app
from mqinfer.errors import (
    ConfigurationError,
    EncodeError,
    RequestFailed,
    RequestInvalid,
    RequestRejected,
)
from mqinfer.packed import PackedError, PackedProcess, PackedRejected
from mqinfer.settings import Settings
from mqinfer.testing import FakeModels, Harness
from tests.catalog import support
from tests.support.gateway import serving


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = support.write(tmp_path_factory.mktemp("catalog"))
    support.packed(path)
    return path


@pytest.fixture
def app(path: Path) -> App:
    return app_of(path)


@pytest.fixture(scope="module")
def processes(path: Path) -> Iterator[dict[str, PackedProcess]]:
    folder = path.parent / "triton_models"
    made = {name: PackedProcess(folder / name / "1") for name in ("double", "join-words")}
    for one in made.values():
        one.start()
    yield made
    for one in made.values():
        one.stop()


@pytest.fixture
def models(processes: dict[str, PackedProcess]) -> Iterator[FakeModels]:
    """The packed classes themselves, without a server between."""
    from mqinfer.errors import ModelError, ModelRejected

    def of(process: PackedProcess) -> Any:
        def answer(**inputs: Any) -> Any:
            batch = {name: np.asarray(one)[None] for name, one in inputs.items()}
            try:
                found = process.run(batch)
            except PackedRejected as error:
                raise ModelRejected(str(error).partition(": ")[2]) from None
            except PackedError as error:
                raise ModelError(str(error)) from None
            return {name: one[0] for name, one in found.items()}

        return answer

    with FakeModels({name: of(one) for name, one in processes.items()}) as models:
        yield models


def test_an_app_comes_of_it(app: App, path: Path) -> None:
    assert app.name == "numbers"
    assert list(app.stages) == ["double", "join-words"]
    assert list(app.endpoints) == ["double", "join"]
    double = app.endpoints["double"]
    assert double.reads.__name__ == "Double"
    assert [kind.__mqinfer__.subject for kind in double.answers] == ["double.answer"]
    assert (app.endpoints["join"].deadline, app.endpoints["join"].keep) == (60, 60)
    assert app.stages["double"].limits.attempts == 1
    assert [model.name for model in app.stages["double"].models] == ["double"]
    assert list(load_app(str(path)).stages) == ["double", "join-words"]


def test_what_is_not_packed_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as error:
        app_of(support.write(tmp_path))
    assert re.search(
        r"models.double is not packed in .*triton_models: mqinfer models pack models.toml",
        str(error.value),
    )


def test_what_no_endpoint_can_be_is_told(path: Path) -> None:
    wrong = path.parent / "wrong.toml"
    wrong.write_text(support.TOML.replace('deadline = "1m"', 'deadline = "long"'))
    with pytest.raises(ConfigurationError, match=r"wrong.toml: models.join-words: .*deadline"):
        app_of(wrong)
    wrong.write_text(support.TOML.replace('app = "numbers"', 'app = "num bers"'))
    with pytest.raises(ConfigurationError, match=r"wrong.toml: an app's name is letters"):
        app_of(wrong)


async def test_a_client_gets_answers_and_what_the_model_raised(
    app: App, nats: Settings, models: FakeModels
) -> None:
    double, join = app.endpoints["double"].reads, app.endpoints["join"].reads
    async with Harness(app, nats) as harness, harness.worker():
        client = harness.client

        async def asked(message: Any) -> Any:
            (found,) = await (await client.request(message)).result(wait=60)
            return found

        answer = await asked(double(x=4))
        assert (answer.y, answer.kind) == ([8.0, 8.0], "even")
        found = await asked(join(words=["a", "ü"], by=b"\0\xff", n=[[1], [-2]]))
        assert (found.text, found.by, found.n) == ("a-ü", b"\0\xff", [[1], [-2]])

        # What the model says of what it was asked, by Reject and by an exception that is listed.
        with pytest.raises(RequestRejected, match=r"^TooLarge: 60 apples$"):
            await asked(double(x=60))
        with pytest.raises(RequestRejected, match=r"^ValueError: unlucky$"):
            await asked(double(x=13))

        # What breaks is nobody's outside; the dead letter has it.
        with pytest.raises(RequestFailed) as error:
            await asked(double(x=7))
        assert not isinstance(error.value, RequestRejected | RequestInvalid)
        assert "mistake" not in str(error.value)
        (letter,) = [one for one in await harness.dead() if one.kind == "failed"]
        assert "KeyError: 'a mistake' (classes.py, line" in letter.reason

        # So does an answer that the class does not declare.
        with pytest.raises(RequestFailed) as error:
            await asked(double(x=0.5))
        assert not isinstance(error.value, RequestRejected)

        asked_before = len(models.calls())
        with pytest.raises(EncodeError, match="x"):
            await client.request(double(x="asdfg"))
        with pytest.raises(MqinferError, match="x"):
            await client.request(double(x=101))
        assert len(models.calls()) == asked_before


async def test_http_refuses_by_field_and_tells_what_the_model_raised(
    app: App, nats: Settings, models: FakeModels
) -> None:
    async with serving(nats, app) as served, served.harness.worker():
        found = await served.ask("double", wait=60, x="asdfg")
        assert found.status_code == 422
        (error,) = found.json()["errors"]
        assert error["pointer"] == "/input/x"
        found = await served.ask("double", wait=60, x=101)
        assert [one["pointer"] for one in found.json()["errors"]] == ["/input/x"]
        assert models.calls() == []
        found = (await served.ask("double", wait=60, x=3)).json()
        assert [one["data"] for one in found["answers"]] == [{"y": [6.0, 6.0], "kind": "odd"}]
        found = (await served.ask("double", wait=60, x=60)).json()
        assert (found["status"], found["errors"]) == (
            "failed", [{"kind": "rejected", "reason": "TooLarge: 60 apples"}],
        )  # fmt: skip
        found = (await served.ask("double", wait=60, x=7)).json()
        (error,) = found["errors"]
        assert error["kind"] == "internal"
        assert error["letter"]
        assert "mistake" not in json.dumps(found)

        api = (await served.http.get("/openapi.json")).json()
        double = api["components"]["schemas"]["Double"]
        assert double["properties"]["x"] == {
            "type": "number", "minimum": 0, "maximum": 100, "description": "apples",
        }  # fmt: skip
        assert api["components"]["schemas"]["DoubleAnswer"]["properties"]["kind"] == {
            "enum": ["even", "odd"]
        }
        post = api["paths"]["/v1/endpoints/double/requests"]["post"]
        assert post["description"] == "Doubles a number."


async def test_a_job_has_an_error_of_each_row_that_is_none(
    app: App, nats: Settings, models: FakeModels, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("custom_id,x\na,1\nb,asdfg\nc,60\nd,2\ne,101\n")
    async with Harness(app, nats) as harness, harness.worker():
        job = await harness.client.submit("double", rows)
        async for progress in job:
            last = progress
        assert (last.status, last.succeeded, last.failed) == ("partial", 2, 3)
        errors = {row.custom_id: row.errors[0] for row in [one async for one in job.errors()]}
    assert {name: one.kind for name, one in errors.items()} == {
        "b": "invalid", "c": "rejected", "e": "invalid",
    }  # fmt: skip
    assert "$.x" in errors["b"].reason
    assert errors["c"].reason == "TooLarge: 60 apples"
