"""A packed model's process: what goes in and out, what it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mqinfer.adapters.tritonerrors import meaning_in_stream
from mqinfer.errors import ModelRejected
from mqinfer.inference.calls import ModelDied
from mqinfer.packed import PackedDied, PackedError, PackedProcess, PackedRejected

ECHO = """
import os, subprocess, sys, time
import numpy as np
from mqinfer import Tensor

class Model:
    inputs = {"x": Tensor("float32", (2,))}
    outputs = {"y": Tensor("float64", (2,)), "who": Tensor("string", ())}

    def load(self, folder):
        print("this is for the log")
        self.by = (folder / "by").read_text()

    def predict(self, x):
        what = x[0, 0]
        if what == 1:
            raise ValueError("unlucky")
        if what == 2:
            os._exit(3)
        if what == 3:
            os.kill(os.getpid(), 11)
        if what == 4:
            return {"y": x}
        if what == 5:
            return x[:1], ["a"]
        if what == 6:
            return {"y": x, "who": x[:, 0]}
        if what == 7:
            sys.exit("so long")
        if what == 8:
            time.sleep(3600)
        if what == 9:  # what it starts holds its connection open
            if os.fork() == 0:
                time.sleep(3600)
            os._exit(4)
        return {"y": 2.0 * x, "who": [self.by] * len(x), "more": 1}
"""

ANNOTATED = """
from typing import Annotated
import numpy as np
from mqinfer import Tensor

class Model:
    def predict(
        self, image: Annotated[np.ndarray, Tensor("uint8", (2, -1))], scale: Tensor("float32", ())
    ) -> Annotated[np.ndarray, Tensor("float32", ())]:
        return image.mean(axis=(1, 2)) * scale
"""

Make = Callable[..., PackedProcess]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Processes of this Python, with a class of a test's own."""
    made: list[PackedProcess] = []

    def process(source: str = ECHO, **facts: Any) -> PackedProcess:
        folder = tmp_path / "echo" / str(len(made) + 1)
        (folder / "source").mkdir(parents=True)
        (folder / "files").mkdir()
        (folder / "source" / "own.py").write_text(source)
        (folder / "files" / "by").write_text("ü")
        known = {"kind": "class", "class": "own:Model", "python": sys.executable}
        (folder / "packed.json").write_text(json.dumps({**known, "requirements": [], **facts}))
        made.append(PackedProcess(folder))
        return made[-1]

    yield process
    for one in made:
        one.stop()


def pair(what: float, count: int = 1) -> dict[str, Any]:
    return {"x": np.full((count, 2), what, np.float32)}


def test_a_batch_is_answered_as_the_class_says(make: Make) -> None:
    process = make()
    process.start()
    assert process.schema == {
        "inputs": {"x": ["float32", [2]]},
        "outputs": {"y": ["float64", [2]], "who": ["string", []]},
    }
    answer = process.run(pair(20, 3))
    assert (answer["y"].dtype, answer["y"].tolist()) == (np.float64, [[40.0, 40.0]] * 3)
    # One value an item has a side of its own, as config.pbtxt says.
    assert [one.decode() for one in answer["who"].ravel()] == ["ü"] * 3
    assert answer["who"].shape == (3, 1)


REFUSING = """
from mqinfer import Reject, Tensor

class TooLarge(Reject):
    pass

class Model:
    inputs = {"x": Tensor("float32", (), ge=0, description="of it")}
    outputs = {"y": Tensor("float32", ())}

    def predict(self, x):
        what = x[0]
        if what == 1:
            raise Reject("too small\\nreally")
        if what == 2:
            raise TooLarge("2 m")
        if what == 3:
            raise KeyError("x")
        if what == 4:
            raise LookupError
        if what == 5:
            raise ValueError("Reject: no")
        return x
"""


def test_what_it_raises_on_purpose_is_told_apart(make: Make) -> None:
    process = make(REFUSING, rejects=["LookupError"])
    process.start()
    assert process.about == {
        "doc": "", "inputs": {"x": {"ge": 0, "description": "of it"}}, "outputs": {},
    }  # fmt: skip
    said = {}
    for what in (1, 2, 3, 4):
        with pytest.raises(PackedRejected) as rejected:
            process.run({"x": np.array([what], np.float32)})
        said[what] = meaning_in_stream(str(rejected.value), "m", "there", said_by_model=True)
        assert isinstance(said[what], ModelRejected)
        # Our own server has the model's name before it.
        again = meaning_in_stream(f"m: {rejected.value}", "m", "there", said_by_model=True)
        assert (type(again), str(again)) == (ModelRejected, str(said[what]))
    assert [str(one) for one in said.values()] == [
        "too small\nreally", "TooLarge: 2 m", "KeyError: 'x'", "LookupError",
    ]  # fmt: skip
    with pytest.raises(PackedError) as failed:
        process.run({"x": np.array([5], np.float32)})
    assert not isinstance(failed.value, PackedRejected)
    assert "ValueError: Reject: no (own.py, line 22)" in str(failed.value)
    meant = meaning_in_stream(str(failed.value), "m", "there", said_by_model=True)
    assert not isinstance(meant, ModelRejected)
    assert process.run({"x": np.array([9], np.float32)})["y"].tolist() == [[9]]


def test_annotations_say_it_too(make: Make) -> None:
    process = make(ANNOTATED)
    process.start()
    assert process.schema == {
        "inputs": {"image": ["uint8", [2, -1]], "scale": ["float32", []]},
        "outputs": {"output": ["float32", []]},
    }
    given = {"image": np.full((3, 2, 5), 4, np.uint8), "scale": np.full((3, 1), 2, np.float32)}
    assert process.run(given)["output"].tolist() == [[8.0]] * 3


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (1, r"ValueError: unlucky \(own\.py, line 17\)$"),
        (4, "returned no who, only y$"),
        (5, r"output 'y' .* for 3 items predict returned float32 \(1, 2\)"),
        (6, "output 'who' is declared as string .*; predict returned float32"),
        (7, "SystemExit: so long"),
    ],
)
def test_what_fails_is_told_and_the_next_is_answered(make: Make, what: int, said: str) -> None:
    process = make()
    process.start()
    with pytest.raises(PackedError, match=said):
        process.run(pair(what, 3))
    assert process.run(pair(20))["y"].tolist() == [[40.0, 40.0]]
    with pytest.raises(PackedError, match="input 'x' is missing"):
        process.run({"z": np.zeros(1)})


@pytest.mark.parametrize(
    ("what", "said"), [(2, "exit code 3"), (3, "ended by SIGSEGV"), (9, "exit code 4")]
)
def test_a_death_is_told_at_once_as_one(make: Make, what: int, said: str) -> None:
    process = make()
    process.start()
    for value in (what, 20):  # also to the next, until it is started again
        with pytest.raises(PackedDied, match=said) as caught:
            process.run(pair(value))
        meaning = meaning_in_stream(str(caught.value), "m", "url", said_by_model=True)
        assert isinstance(meaning, ModelDied)
    assert not process.running
    process.start()
    assert process.run(pair(20))["y"].tolist() == [[40.0, 40.0]]


def test_a_stop_ends_a_model_at_work(make: Make) -> None:
    process = make()
    process.start()
    ended: list[Exception] = []

    def work() -> None:
        try:
            process.run(pair(8))
        except PackedDied as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    pid = process.pid
    assert pid is not None
    process.stop(timeout=0.1)
    thread.join(60)
    assert len(ended) == 1
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nothing_such", r"No module named 'nothing_such' \(own\.py, line 1\)"),
        ("class Other: pass", "has no attribute 'Model'"),
        ("class Model: pass", "class Model has no method `predict`"),
        ("class Model:\n def predict(self, x): ...", "class Model does not say its inputs"),
        (
            "class Model:\n inputs = {'x': 3}\n outputs = inputs\n def predict(self, x): ...",
            r"inputs\['x'\] is no Tensor",
        ),
        (ECHO.replace('"by"', '"nothing"'), "FileNotFoundError.*nothing"),
        ("import os\nos._exit(7)", "exit code 7"),
    ],
)
def test_what_does_not_load_says_why(make: Make, source: str, said: str) -> None:
    process = make(source)
    with pytest.raises(PackedError, match=said):
        process.start()
    assert not process.running


def test_loading_is_bounded(make: Make) -> None:
    process = PackedProcess(make("import time\ntime.sleep(3600)").folder, start_timeout=0.1)
    with pytest.raises(PackedError, match="not loaded within"):
        process.start()


def test_a_version_that_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(PackedError, match=r"packed\.json"):
        PackedProcess(tmp_path).start()


PARENT = """
import sys
from pathlib import Path
import numpy as np
from mqinfer.packed import PackedProcess
process = PackedProcess(Path(sys.argv[1]))
process.start()
print(process.pid, flush=True)
process.run({"x": np.full((1, 2), 8, np.float32)})
"""


def test_nothing_is_left_when_the_server_is_killed(make: Make) -> None:
    """Not even a model that is at work."""
    server = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(make().folder)], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    with server.stdout as out:
        model = psutil.Process(int(out.readline()))
    server.send_signal(signal.SIGKILL)
    server.wait()
    model.wait(60)


def test_what_is_about_the_servers_python_is_not_the_models(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/a:/x/nvidia_pytriton.libs:/b")
    source = ECHO.replace('(folder / "by").read_text()', "str([sys.path, dict(os.environ)])")
    process = make(source)
    process.start()
    text = process.run(pair(20))["who"][0, 0].decode()
    assert "/nowhere" not in text
    assert "'LD_LIBRARY_PATH': '/a:/b'" in text
    assert os.environ["PYTHONPATH"] == "/nowhere"


# --- all values ----------------------------------------------------------------------------------

SAME = """
class Model:
    def predict(self, **inputs):
        return inputs
"""
NUMBERS = ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
           "float16", "float32", "float64"]  # fmt: skip


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackedProcess]:
    folder = tmp_path_factory.mktemp("same") / "1"
    (folder / "source").mkdir(parents=True)
    (folder / "source" / "own.py").write_text(SAME)
    shapes: dict[str, list[Any]] = {name: [name, [-1, 3]] for name in NUMBERS}
    shapes |= {"text": ["string", [-1]], "raw": ["bytes", [-1]], "one": ["string", []]}
    facts = {"kind": "class", "class": "own:Model", "python": sys.executable, "requirements": []}
    schema = {"inputs": shapes, "outputs": shapes}
    (folder / "packed.json").write_text(json.dumps({**facts, "schema": schema}))
    process = PackedProcess(folder)
    process.start()
    yield process
    process.stop()


@given(st.data())
def test_every_value_comes_back_as_it_is(same: PackedProcess, data: st.DataObject) -> None:
    count, side = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 3))
    given: dict[str, Any] = {
        name: data.draw(arrays.arrays(name, (count, side, 3))) for name in NUMBERS
    }
    # A view that is not contiguous, as handlers have.
    given["int64"] = data.draw(arrays.arrays("int64", (3, side, count))).T
    for name, values in (("text", st.text()), ("raw", st.binary()), ("one", st.text())):
        shape = (count, 1) if name == "one" else (count, side)
        given[name] = data.draw(arrays.arrays(object, shape, elements=values, fill=st.nothing()))
    answer = same.run(given)
    for name, array in given.items():
        assert answer[name].shape == array.shape
        if name in NUMBERS:
            assert answer[name].dtype == array.dtype
            assert answer[name].tobytes() == np.ascontiguousarray(array).tobytes()
        else:
            sent = [one.encode() if isinstance(one, str) else one for one in array.ravel()]
            assert answer[name].ravel().tolist() == sent


def test_a_large_array_goes_quickly(same: PackedProcess) -> None:
    given = {name: np.zeros((1, 0, 3), name) for name in NUMBERS}
    given |= {name: np.empty((1, 1), object) for name in ("text", "raw", "one")}
    for name in ("text", "raw", "one"):
        given[name][:] = "x"
    given["float64"] = np.random.default_rng(1).random((1, 2_000_000, 3))
    began = time.monotonic()
    assert (same.run(given)["float64"] == given["float64"]).all()
    assert time.monotonic() - began < 60
