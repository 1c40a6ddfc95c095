"""A packed model in a process of its own: started with the Python of the model's environment.

One file without neighbours, with whatever NumPy is there, as the environment is the model's:

    python -I child.py FOLDER SOCKET LIFE

FOLDER is the version's, with `packed.json`; SOCKET a connected socket, on which frames go both
ways; LIFE the end of a pipe whose other end closes when the parent is gone: so is this, then.

A frame is a head, JSON with its length in four bytes before it, and the bytes of the arrays that
the head lists. There is no pickle in it, which NumPy 1 and 2 do not read of each other.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import signal
import socket
import struct
import sys
import threading
import traceback
import types
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np

# --- frames -------------------------------------------------------------------------------------

Arrays = dict[str, Any]  # of NumPy's
_LENGTH = struct.Struct("<I")
_TEXT = "text"  # the type of an array of str or bytes, whose items have their length before them


def send(to: socket.socket, head: dict[str, Any], arrays: Arrays | None = None) -> None:
    """Write one frame."""
    listed: list[dict[str, Any]] = []
    contents: list[Any] = []
    for name, array in (arrays or {}).items():
        if array.dtype.kind in "OSU":
            kind = _TEXT
            content: Any = _packed(array)
        else:
            array = np.ascontiguousarray(array)
            kind = array.dtype.str
            content = array.reshape(-1).view(np.uint8).data
        listed.append({"name": name, "type": kind, "shape": array.shape, "bytes": len(content)})
        contents.append(content)
    text = json.dumps({**head, "arrays": listed}).encode()
    to.sendall(_LENGTH.pack(len(text)) + text)
    for content in contents:
        to.sendall(content)


def receive(exactly: Any) -> tuple[dict[str, Any], Arrays]:
    """Read one frame.

    Args:
        exactly: gives so many bytes, as a bytearray.
    """
    (length,) = _LENGTH.unpack(exactly(_LENGTH.size))
    head = json.loads(bytes(exactly(length)))
    arrays = {}
    for one in head.pop("arrays"):
        content = exactly(one["bytes"])
        if one["type"] == _TEXT:
            flat = _unpacked(content)
        else:
            flat = np.frombuffer(content, dtype=np.dtype(one["type"]))
        arrays[one["name"]] = flat.reshape(one["shape"])
    return head, arrays


def _packed(array: Any) -> bytes:
    parts = []
    for item in array.ravel().tolist():
        text = item if isinstance(item, bytes) else str(item).encode()
        parts += [_LENGTH.pack(len(text)), text]
    return b"".join(parts)


def _unpacked(content: bytearray) -> Any:
    items, position = [], 0
    while position < len(content):
        (length,) = _LENGTH.unpack_from(content, position)
        position += _LENGTH.size
        items.append(bytes(content[position : position + length]))
        position += length
    flat = np.empty(len(items), dtype=object)
    flat[:] = items
    return flat


# --- what a model declares ----------------------------------------------------------------------


class Tensor(NamedTuple):
    """Type and shape of one item, -1 for any size; as `mqinfer.Tensor`, which is not here."""

    dtype: str
    shape: tuple[int, ...]
    ge: Any = None
    le: Any = None
    one_of: tuple[Any, ...] = ()
    description: str = ""


class Reject(Exception):
    """An item can never be answered, and its sender is to know why; as `mqinfer.Reject`."""


class Refused(Exception):
    """What the model, or what it was given, does wrong, in words for its author."""


def declared(model: type) -> dict[str, Any]:
    """The inputs and outputs of a class: its attributes of these names, or predict's annotations.

    Raises:
        Refused: they are not declared.
    """
    return {
        way: {name: _plain(way, name, one) for name, one in tensors.items()}
        for way, tensors in _tensors(model).items()
    }


def about(model: type) -> dict[str, Any]:
    """What a class says to people: its docstring, and of each tensor bounds and a description."""
    words = (("ge", None), ("le", None), ("one_of", ()), ("description", ""))
    found: dict[str, Any] = {"doc": inspect.cleandoc(model.__doc__ or "")}
    for way, tensors in _tensors(model).items():
        found[way] = {}
        for name, one in tensors.items():
            said = {word: getattr(one, word, none) for word, none in words}
            told = {word: said[word] for word, none in words if said[word] != none}
            if told:
                found[way][name] = told
    return found


def _tensors(model: type) -> dict[str, Any]:
    predict = getattr(model, "predict", None)
    if not callable(predict):
        raise Refused(f"class {model.__name__} has no method `predict`")
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    hints = get_type_hints(predict, include_extras=True) if None in (inputs, outputs) else {}
    answer = _annotated(hints.pop("return", None))
    if inputs is None:
        inputs = {name: found for name, hint in hints.items() if (found := _annotated(hint))}
    if outputs is None:
        outputs = {"output": answer} if hasattr(answer, "dtype") else answer
    found = {"inputs": inputs, "outputs": outputs}
    for way, tensors in found.items():
        if not tensors or not isinstance(tensors, dict):
            raise Refused(
                f"class {model.__name__} does not say its {way}: "
                f'{way} = {{"x": Tensor("float32", (4,))}}, by name, the shape that of one item'
            )
    return found


def _annotated(hint: Any) -> Any:
    """The Tensor, or the dict of them, in `Annotated[np.ndarray, Tensor(...)]`."""
    given = get_args(hint)[1:] if get_origin(hint) is Annotated else [hint]
    return next((one for one in given if isinstance(one, dict) or hasattr(one, "dtype")), None)


def _plain(way: str, name: str, one: Any) -> list[Any]:
    try:
        dtype, shape = (one.dtype, one.shape) if hasattr(one, "dtype") else one
        if dtype not in ("string", "bytes"):
            dtype = np.dtype(dtype).name
        return [dtype, [int(side) for side in shape]]
    except (TypeError, ValueError, AttributeError):
        raise Refused(f"{way}[{name!r}] is no Tensor(dtype, shape): {one!r}") from None


# --- kinds of models ----------------------------------------------------------------------------


class _Class:
    """A class of the user's."""

    def __init__(self, folder: Path, told: dict[str, Any]):
        sys.path.insert(0, str(folder / "source"))
        module, _, name = told["class"].partition(":")
        kind: Any = importlib.import_module(module)
        for part in name.split("."):
            kind = getattr(kind, part)
        if "schema" in told:
            self.schema, self.about = told["schema"], told.get("about", {})
        else:
            self.schema, self.about = declared(kind), about(kind)
        self.model = kind()
        if hasattr(self.model, "load"):
            self.model.load(folder / "files")

    def predict(self, inputs: Arrays) -> Any:
        return self.model.predict(**inputs)


class _TorchScript:
    """A file that torch.jit.save wrote; its inputs are given in the order of the schema."""

    def __init__(self, folder: Path, told: dict[str, Any]):
        import torch

        self.torch, self.schema = torch, told["schema"]
        self.model = torch.jit.load(str(folder / "files" / told["file"]), map_location="cpu")
        self.model.eval()

    def predict(self, inputs: Arrays) -> Any:
        torch = self.torch
        given = [torch.from_numpy(inputs[name]) for name in self.schema["inputs"]]
        with torch.inference_mode():
            answer = self.model(*given)
        if isinstance(answer, dict):
            return {name: one.numpy() for name, one in answer.items()}
        if isinstance(answer, torch.Tensor):
            return answer.numpy()
        return tuple(one.numpy() for one in answer)


class _MLflow:
    """A model folder of MLflow, its flavour `python_function`; without MLflow by its layout."""

    def __init__(self, folder: Path, told: dict[str, Any]):
        self.schema, self.columns = told["schema"], told["columns"]
        path = folder / "files" / "model"
        try:
            import mlflow.pyfunc as pyfunc
        except ModuleNotFoundError:
            if told.get("code"):
                sys.path.insert(0, str(path / told["code"]))
            data = path / told["data"] if told.get("data") else path
            self.model = importlib.import_module(told["loader"])._load_pyfunc(str(data))
        else:
            self.model = pyfunc.load_model(str(path))

    def predict(self, inputs: Arrays) -> Any:
        if self.columns:
            import pandas

            given = pandas.DataFrame({name: array.ravel() for name, array in inputs.items()})
        else:
            given = inputs if len(inputs) > 1 else next(iter(inputs.values()))
        answer = self.model.predict(given)
        if hasattr(answer, "columns"):  # a DataFrame
            return {str(name): answer[name].to_numpy() for name in answer.columns}
        return answer


_KINDS = {"class": _Class, "torchscript": _TorchScript, "mlflow": _MLflow}


# --- one request --------------------------------------------------------------------------------


def run(model: Any, inputs: Arrays) -> Arrays:
    """Have a batch predicted.

    Raises:
        Refused: what came out is not what was declared.
    """
    schema = model.schema
    given = {}
    for name, (dtype, shape) in schema["inputs"].items():
        if name not in inputs:
            raise Refused(f"input {name!r} is missing")
        given[name] = _given(inputs[name], dtype, shape)
    count = next(len(array) for array in given.values())
    answer = model.predict(given)
    outputs = schema["outputs"]
    if not isinstance(answer, dict):
        values = answer if isinstance(answer, tuple) and len(outputs) > 1 else (answer,)
        if len(values) != len(outputs):
            raise Refused(
                f"predict returned {len(values)} outputs, {len(outputs)} are declared: "
                f"{', '.join(outputs)}"
            )
        answer = dict(zip(outputs, values))  # noqa: B905 - Python 3.9 has no strict=
    missing = [name for name in outputs if name not in answer]
    if missing:
        raise Refused(f"predict returned no {', '.join(missing)}, only {', '.join(answer)}")
    return {name: _answered(name, answer[name], count, *outputs[name]) for name in outputs}


def _given(array: Any, dtype: str, shape: list[int]) -> Any:
    if dtype == "string":
        flat = np.empty(array.size, dtype=object)
        flat[:] = [one.decode() if isinstance(one, bytes) else one for one in array.ravel()]
        array = flat.reshape(array.shape)
    # One value an item has a side of its own on the way.
    return array.reshape(len(array)) if not shape and array.ndim > 1 else array


def _answered(name: str, value: Any, count: int, dtype: str, shape: list[int]) -> Any:
    array = np.asarray(value)
    said = f"output {name!r} is declared as {dtype} {tuple(shape)} for each item"
    # One value an item has a side of its own on the way.
    wanted_sides = shape or [1]
    if wanted_sides == [1] and array.ndim == 1:
        array = array.reshape(-1, 1)
    sides = list(array.shape[1:])
    fits = len(sides) == len(wanted_sides) and all(
        want in (-1, have)
        for want, have in zip(wanted_sides, sides)  # noqa: B905 - Python 3.9 has no strict=
    )
    if array.ndim == 0 or len(array) != count or not fits:
        raise Refused(f"{said}; for {count} items predict returned {array.dtype} {array.shape}")
    if dtype in ("string", "bytes"):
        if array.dtype.kind not in "OSU":
            raise Refused(f"{said}; predict returned {array.dtype}")
        return array.astype(object)
    wanted = np.dtype(dtype)
    if array.dtype.kind == "O" or not np.can_cast(array.dtype, wanted, "same_kind"):
        raise Refused(f"{said}; predict returned {array.dtype}")
    return array.astype(wanted, copy=False)


def told(error: BaseException) -> str:
    """An error in words, with the line of the model's own code that it came from."""
    if isinstance(error, Refused):
        return str(error)
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    frames = traceback.extract_tb(error.__traceback__)
    places = [one for one in frames if "/source/" in one.filename]
    return (
        f"{text} ({Path(places[-1].filename).name}, line {places[-1].lineno})" if places else text
    )


def rejected(error: BaseException, names: frozenset[str]) -> str | None:
    """What the sender of an item is told, if the model raised this to say that; else None.

    It did if the error is of a class of one of these names, or derived from one. The text has the
    name of the class before it, by which callers tell errors apart, but for a plain `Reject`.
    """
    kind = type(error)
    if not any(base.__name__ in names for base in kind.__mro__):
        return None
    text = str(error)
    return text if text and kind.__name__ == "Reject" else f"{kind.__name__}: {text}".rstrip(": ")


def _exactly(of: socket.socket, count: int) -> bytearray:
    content = bytearray(count)
    view, position = memoryview(content), 0
    while position < count:
        got = of.recv_into(view[position:])
        if not got:
            raise EOFError
        position += got
    return content


def _end_with(life: int) -> None:
    """End with the parent, whatever the model does meanwhile, and all that the model started."""
    os.read(life, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main(folder: Path, connection: socket.socket, life: int) -> None:
    """Load the model, say so, and answer frames until the parent closes."""
    threading.Thread(target=_end_with, args=(life,), name="life", daemon=True).start()
    os.dup2(2, 1)  # what a model prints is for the log
    if "mqinfer" not in sys.modules and importlib.util.find_spec("mqinfer") is None:
        # So that a class may say `from mqinfer import Reject, Tensor`.
        stand_in: Any = types.ModuleType("mqinfer")
        stand_in.Tensor, stand_in.Reject = Tensor, Reject
        sys.modules["mqinfer"] = stand_in
    try:
        facts = json.loads((folder / "packed.json").read_text())
        model: Any = _KINDS[facts["kind"]](folder, facts)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - told to the parent
        traceback.print_exc()
        send(connection, {"error": told(error)})
        return
    send(connection, {"schema": model.schema, "about": getattr(model, "about", {})})
    rejects = frozenset(("Reject", *facts.get("rejects", ())))
    try:
        while True:
            _, inputs = receive(lambda count: _exactly(connection, count))
            try:
                outputs = run(model, inputs)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - told to the parent
                words = rejected(error, rejects)
                send(connection, {"error": told(error)} if words is None else {"rejected": words})
            else:
                send(connection, {}, outputs)
    except (EOFError, ConnectionError):
        return


if __name__ == "__main__":
    main(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])), int(sys.argv[3]))
