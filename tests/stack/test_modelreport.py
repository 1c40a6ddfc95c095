"""Models that are not served: told once with the reason, and when they are mended."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

from mqinfer.adapters.triton import TritonClient
from mqinfer.errors import ModelUnavailable
from mqinfer.inference.reasons import NOT_TAKEN, why
from mqinfer.stack import InferenceServer, StackConfigurationError
from mqinfer.stack.modelfolder import flaw
from mqinfer.stack.modelreport import ModelReport
from mqinfer.stack.ports import HOST
from mqinfer.stack.triton import ModelState, TritonServer, find_triton
from tests.support.cli import TIMEOUT, command
from tests.support.models import save_affine, save_echo
from tests.support.triton import serving, why_no_triton


class Told(ModelReport):
    """A report on states that a test sets; keeps the lines."""

    def __init__(self) -> None:
        self.now: list[ModelState] = []
        self.lines: list[str] = []
        super().__init__("Triton", self.states, self.lines.append)

    async def states(self) -> list[ModelState]:
        return self.now

    async def next(self, *states: tuple[str, str, str, str]) -> list[str]:
        self.now = [ModelState(*one) for one in states]
        self.lines.clear()
        await self.look()
        return list(self.lines)


async def test_each_is_told_once_and_when_it_is_mended() -> None:
    told = Told()
    bad, good = ("leaf", "1", "UNAVAILABLE", "no file"), ("leaf", "1", "READY", "")
    assert await told.next(bad) == ["warning: Triton does not serve leaf 1: no file"]
    assert await told.next(bad) == []
    assert await told.next(("leaf", "1", "LOADING", "")) == []
    assert await told.next(bad) == []
    worse = ("leaf", "1", "UNAVAILABLE", "bad file")
    assert await told.next(worse) == ["warning: Triton does not serve leaf 1: bad file"]
    assert await told.next(good) == ["loaded now: leaf 1"]
    assert await told.next(good) == []
    assert await told.next(bad) == ["warning: Triton does not serve leaf 1: no file"]


async def test_a_folder_that_was_not_taken_has_no_version_before_it_is_mended() -> None:
    told = Told()
    assert await told.next(("leaf", "", "", "")) == []  # not asked for yet
    assert len(await told.next(("leaf", "", "", "config.pbtxt"))) == 1
    assert await told.next(("leaf", "1", "LOADING", "")) == []
    assert await told.next(("leaf", "1", "READY", "")) == ["loaded now: leaf"]


async def test_a_served_model_whose_change_is_refused_is_told_beside_it() -> None:
    told = Told()
    good = ("leaf", "1", "READY", "")
    refused = ("leaf", "", "", "config.pbtxt")
    assert len(await told.next(good, refused)) == 1
    assert await told.next(good, refused) == []
    assert await told.next(good) == ["loaded now: leaf"]
    assert len(await told.next(good, ("leaf", "2", "UNAVAILABLE", "x"))) == 1
    assert await told.next(good, ("leaf", "2", "READY", "")) == ["loaded now: leaf 2"]


async def test_what_was_taken_away_is_no_news() -> None:
    told = Told()
    assert len(await told.next(("leaf", "1", "UNAVAILABLE", "x"))) == 1
    assert await told.next() == []
    assert await told.next(("leaf", "1", "UNAVAILABLE", "unloaded")) == []


def test_reasons_are_one_line_that_a_user_can_act_on() -> None:
    raised = "Internal: TritonModelException: no x\n\nAt:\n  /a/model.py(86): initialize\n"
    assert why(raised) == "no x"
    code = (
        "Internal: ModuleNotFoundError: No module named 'b'\n\nAt:\n"
        "  <frozen importlib._bootstrap>(2): exec\n  /a b/leaf/1/model.py(3): <module>\n"
    )
    assert why(code) == "ModuleNotFoundError: No module named 'b' (model.py, line 3)"
    assert why("Invalid argument: no such backend") == "no such backend"
    assert why("unloaded") == "unloaded"
    assert (why("", ""), why("", "1")) == (NOT_TAKEN, "")


@pytest.mark.parametrize(
    ("config", "file", "said"),
    [
        ("backend: {", "1/model.onnx", "line 1, column 10"),
        ('backend: "onnxruntime"\nbatch: 3', "1/model.onnx", "line 2.*no field named .batch"),
        ('name: "b"', "1/model.onnx", "has the name 'b', which must be the folder's, 'leaf'"),
        (None, "model.onnx", "belongs into leaf/1/"),
        (None, "1/model.joblib", "has model.joblib, no model.onnx.*models pack"),
        ('backend: "tensorflow"', "1/weights.h5", None),
        (None, "1/model.onnx", None),
    ],
)
def test_a_flawed_folder_says_what_is_wrong(
    tmp_path: Path, config: str | None, file: str, said: str | None
) -> None:
    path = tmp_path / "leaf" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    if config is not None:
        (tmp_path / "leaf" / "config.pbtxt").write_text(config)
    found = flaw(tmp_path / "leaf")
    if said is None:
        assert found is None
    else:
        with pytest.raises(AssertionError, match=said):
            assert not found, found


def begun(folder: Path, models: Path, inference: str) -> subprocess.Popen[str]:
    ports = [f"--{name}-port=0" for name in ("triton-grpc", "triton-http", "triton-metrics")]
    ports.append(f"--inference={inference}")
    where = (f"--dir={folder}", f"--models={models}")
    return subprocess.Popen(
        command("up", *ports, "--no-nats", "--no-clickhouse", *where),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


async def refusal(client: TritonClient, model: str, version: str | None = None) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        await client.describe(model, version)
    return str(caught.value)


@pytest.mark.parametrize("kind", [TritonServer, InferenceServer])
async def test_between_its_mending_and_its_loading_a_model_is_no_news(
    tmp_path: Path, kind: type[TritonServer]
) -> None:
    """Its folder is whole already, and the server has not been asked for it again."""
    if kind is TritonServer and (missing := why_no_triton()):
        pytest.skip(missing)
    save_echo(tmp_path / "models", "other", 1, ["n", 1])
    file = tmp_path / "models" / "other" / "config.pbtxt"
    config = file.read_text()
    file.write_text("backend: {")
    async with serving(tmp_path / "server", tmp_path / "models", kind) as server:
        lines: list[str] = []
        report = ModelReport(server.name, server.model_states, lines.append)
        await report.look()
        assert len(lines) == 1
        file.write_text(config)
        while len(lines) == 1:  # so often that a look falls into the time between
            await report.look()
        name = lines[0].split("does not serve ")[1].split(":")[0]
        assert lines[1:] == [f"loaded now: {name}"]


@pytest.mark.parametrize(
    ("inference", "server", "not_taken"),
    [("triton", "Triton", NOT_TAKEN), ("onnx", "the inference server", "config.pbtxt cannot be")],
)
async def test_up_says_why_and_when_it_is_mended(
    tmp_path: Path, inference: str, server: str, not_taken: str
) -> None:
    """And whoever asks the server for the model, as `check` and a worker do, hears why, too."""
    root = tmp_path / "models"
    save_affine(root, "leaf")
    good = (root / "leaf" / "1" / "model.onnx").read_bytes()
    (root / "leaf" / "1" / "model.onnx").write_bytes(b"no model")
    save_echo(root, "other", 1, ["n", 1])
    config = (root / "other" / "config.pbtxt").read_text()
    (root / "other" / "config.pbtxt").write_text("backend: {")
    if inference == "triton":
        try:
            find_triton()
        except StackConfigurationError as error:
            pytest.skip(str(error))
    process = begun(tmp_path / "up", root, inference)
    assert process.stdout is not None
    with process.stdout as out:
        told = f"warning: {server} does not serve"
        first, second, ready = (out.readline() for _ in range(3))
        assert first.startswith(f"{told} leaf 1: cannot load")
        assert second.startswith(f"{told} other: ")
        assert "config.pbtxt cannot be read" in second
        found = re.search(rf"{HOST}:\d+", ready)
        assert found is not None, ready
        client = TritonClient(found[0])
        assert "leaf is not ready at 127.0.0.1" in await refusal(client, "leaf")
        assert ": cannot load " in await refusal(client, "leaf")
        assert not_taken in await refusal(client, "other")
        assert (await refusal(client, "nope")).endswith(": it is not in the repository")
        (root / "leaf" / "1" / "model.onnx").write_bytes(good)
        assert out.readline() == "loaded now: leaf 1\n"
        text = await refusal(client, "leaf", "3")
        assert text.endswith("it is not in the repository; it serves 1")
        await client.close()
        (root / "other" / "config.pbtxt").write_text(config)
        assert out.readline() == "loaded now: other\n"
        process.send_signal(signal.SIGTERM)
        assert out.read() == "stopping\nstopped\n"
    assert process.wait(TIMEOUT) == 0
