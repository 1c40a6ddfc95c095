"""Models: what newcomers do wrong with a model server, and what the line that tells them says."""

from __future__ import annotations

from pathlib import Path

from tests.firsthour.desk import Mistake
from tests.support.models import save_affine

CHECK = "check {name}:app"
HANDLED = (
    "publish {name}:app word words.jsonl",
    "worker {name}:app --drain --no-wait",
    "dead list {name}:app",
)
WORDS = {"words.jsonl": '{"text": "petal"}\n'}
SERVER = {"MQINFER_TRITON_URL": "{models}"}
RETURN = "return Length(word.text, len(word.text))"
NUMPY = ("from mqinfer import", "import numpy as np\n\nfrom mqinfer import")


def asks(inputs: str, output: str = "y") -> tuple[tuple[str, str], ...]:
    """The app, with a handler that asks the model."""
    lines = f'found = await double({inputs})\n    return Length(word.text, int(found["{output}"]))'
    return (NUMPY, (RETURN, lines))


def named(model: str) -> tuple[tuple[str, str], ...]:
    """The app, with a handler that asks another model."""
    return (('app.model("double")', f'app.model("{model}")'), *asks("x=np.ones(1, np.float32)"))


def repository(root: Path) -> None:
    """Write what the server has: `double`, and copies of it with one thing wrong in each."""
    (root / "models").mkdir()
    root = root / "models"
    save_affine(root, "double")
    good = (root / "double" / "1" / "model.onnx").read_bytes()
    config = (root / "double" / "config.pbtxt").read_text()
    changes = {
        "typo": ("max_batch_size:", "max_batchsize:"),
        "dtype": ("TYPE_FP32", "TYPE_FLOAT32"),
        "dims": ("dims: [ 1 ]", "dims: [ 4 ]"),
        "cut": ("", ""),
        "empty": ("", ""),
    }
    for name, (old, new) in changes.items():
        (root / name / "1").mkdir(parents=True)
        (root / name / "config.pbtxt").write_text(config.replace(old, new) if old else config)
        data = {"cut": good[: len(good) // 2], "empty": None}.get(name, good)
        if data is not None:
            (root / name / "1" / "model.onnx").write_bytes(data)


MODELS = (
    Mistake(
        name="No model server at the address",
        edits=asks("x=np.ones(1, np.float32)"),
        run=(CHECK,),
        code=1,
        environ={"MQINFER_TRITON_URL": "127.0.0.1:1"},
        says=("127.0.0.1:1", "nobody listens there: is it running", "MQINFER_TRITON_URL"),
    ),
    Mistake(
        name="NATS's port instead of the model server's",
        edits=asks("x=np.ones(1, np.float32)"),
        run=(CHECK,),
        code=1,
        environ={"MQINFER_TRITON_URL": "{nats_port}"},
        says=("does not speak gRPC", "MQINFER_TRITON_URL", "gRPC endpoint, 8001"),
    ),
    Mistake(
        name="A model that the server does not have",
        edits=named("dubble"),
        run=(CHECK,),
        code=1,
        environ=SERVER,
        says=("model dubble is not ready", "it is not in the repository", "did you mean double?"),
    ),
    Mistake(
        name="A version that the server does not have",
        edits=(
            ('app.model("double")', 'app.model("double", version="7")'),
            *asks("x=np.ones(1, np.float32)"),
        ),
        run=(CHECK,),
        code=1,
        environ=SERVER,
        says=("model double version 7 is not ready", "not in the repository; it serves 1"),
    ),
    Mistake(
        name="A field of config.pbtxt is misspelt",
        edits=named("typo"),
        run=(CHECK,),
        code=1,
        environ=SERVER,
        says=("config.pbtxt cannot be read", "max_batchsize", "Did you mean max_batch_size?"),
    ),
    Mistake(
        name="A dtype in config.pbtxt that there is not",
        edits=named("dtype"),
        run=(CHECK,),
        code=1,
        environ=SERVER,
        says=("config.pbtxt cannot be read", "TYPE_FLOAT32", "Did you mean TYPE_FP32?"),
    ),
    Mistake(
        name="Dims in config.pbtxt that the model does not have",
        edits=named("dims"),
        run=(CHECK,),
        code=1,
        environ=SERVER,
        says=("input 'x': the configuration says [-1, 4]", "the model has [-1, 1]"),
    ),
    Mistake(
        name="A version folder without its model file",
        edits=named("empty"),
        run=(CHECK,),
        code=1,
        environ=SERVER,
        says=("cannot load", "empty/1/model.onnx: there is no such file; put the model there"),
    ),
    Mistake(
        name="An ONNX file that is cut off",
        edits=named("cut"),
        run=(CHECK,),
        code=1,
        environ=SERVER,
        says=("cannot load", "bytes are no whole ONNX model; was the copy cut off?"),
    ),
    Mistake(
        name="A tensor of the wrong shape",
        edits=asks("x=np.ones(3, np.float32)"),
        run=HANDLED,
        code=0,
        files=WORDS,
        environ=SERVER,
        letter=True,
        says=("input 'x' is float32 (3,), the model wants float32 (1,)",),
    ),
    Mistake(
        name="A tensor of the wrong dtype",
        edits=asks("x=np.ones(1)"),
        run=HANDLED,
        code=0,
        files=WORDS,
        environ=SERVER,
        letter=True,
        says=("input 'x' is float64 (1,), the model wants float32 (1,)",),
    ),
    Mistake(
        name="An input that the model does not have",
        edits=asks("image=np.ones(1, np.float32)"),
        run=(CHECK,),
        code=1,
        environ=SERVER,
        says=("stage measure: model double has no input 'image'; it has 'x'",),
    ),
    Mistake(
        name="An output that the model does not have",
        edits=asks("x=np.ones(1, np.float32)", "scores"),
        run=HANDLED,
        code=0,
        files=WORDS,
        environ=SERVER,
        letter=True,
        says=("model double has no output 'scores'; it has 'y'",),
    ),
)
