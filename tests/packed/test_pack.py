"""`mqinfer models pack`: what it writes, what it leaves alone, and what it refuses."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mqinfer.adapters import tritonconfig
from mqinfer.packed import PackedProcess
from tests.packed import folders
from tests.support.cli import Shell
from tests.support.models import save_affine

# The Python of the tests has what the classes need: no environment is made.
HERE = ("--python", sys.executable)


@pytest.fixture
def there(shell: Shell) -> Shell:
    """A shell in a folder with a class in `double.py`."""
    (shell.folder / "double.py").write_text(folders.DOUBLE)
    return shell


def packed(shell: Shell, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = shell.json("models", "pack", *arguments)
    return found


def answer(folder: str, **inputs: Any) -> dict[str, Any]:
    process = PackedProcess(Path(folder))
    process.start()
    try:
        return process.run(inputs)
    finally:
        process.stop()


def tree(folder: Path) -> list[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if "__pycache__" not in path.parts)


def refused(shell: Shell, *arguments: str) -> str:
    """What is said; nothing may have been written."""
    before = tree(shell.folder)
    code, _, err = shell.run("models", "pack", *arguments)
    assert code == 2, err
    assert tree(shell.folder) == before
    return err


def test_a_class_becomes_a_version_that_answers(there: Shell) -> None:
    (there.folder / "by.txt").write_text("3")
    arguments = ("double:Double", "--to", "models/double", *HERE, "--file", "by.txt")
    found = packed(there, *arguments)
    assert (found["model"], found["version"]) == ("double", "1")
    folder = there.folder / "models" / "double"
    assert found["folder"] == str(folder / "1")
    assert tree(folder) == [
        "1/files/by.txt",
        "1/model.py",
        "1/packed.json",
        "1/packed_runtime/__init__.py",
        "1/packed_runtime/child.py",
        "1/packed_runtime/environment.py",
        "1/packed_runtime/process.py",
        "1/packed_runtime/together.py",
        "1/source/double.py",
        "config.pbtxt",
    ]
    x = np.ones((2, 2), np.float32)
    assert answer(found["folder"], x=x)["y"].tolist() == [[3, 3], [3, 3]]
    assert tritonconfig.read(folder / "config.pbtxt") == {
        "name": "double",
        "backend": "python",
        "max_batch_size": 32,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["2"]}],
        "output": [
            {"name": "y", "data_type": "TYPE_FP32", "dims": ["2"]},
            {"name": "name", "data_type": "TYPE_STRING", "dims": ["1"]},
        ],
        "dynamic_batching": {},
        "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
        "version_policy": {"all": {}},
    }
    # Nothing of it is left elsewhere.
    assert [path.name for path in there.folder.iterdir() if path.name.startswith(".mq")] == []


def test_the_next_version_leaves_everything_as_it_is(there: Shell) -> None:
    arguments = ("double.py:Double", "--to", "models/double", *HERE)
    packed(there, *arguments)
    config = there.folder / "models" / "double" / "config.pbtxt"
    config.write_text(config.read_text().replace("size: 32", "size: 7") + "# mine\n")
    before = {path: path.read_bytes() for path in config.parent.rglob("*") if path.is_file()}
    assert packed(there, *arguments)["version"] == "2"
    assert packed(there, *arguments, "--version", "9")["version"] == "9"
    assert packed(there, *arguments)["version"] == "10"
    assert {path: path.read_bytes() for path in before} == before
    assert "is there: --force" in refused(there, *arguments, "--version", "9")
    (there.folder / "double.py").write_text(folders.DOUBLE.replace("2.0", "5.0"))
    replaced = packed(there, *arguments, "--version", "9", "--force", "--max-batch", "4")
    assert answer(replaced["folder"], x=np.ones((1, 2), np.float32))["y"].tolist() == [[5, 5]]
    assert tritonconfig.read(config)["max_batch_size"] == 4
    assert tree(config.parent / "9") == tree(config.parent / "10")


def test_another_shape_does_not_go_with_versions_that_are_there(there: Shell) -> None:
    arguments = ("double:Double", "--to", "models/double", *HERE)
    packed(there, *arguments)
    (there.folder / "double.py").write_text(folders.DOUBLE.replace("(2,)", "(3,)"))
    said = refused(there, *arguments)
    assert "inputs x TYPE_FP32 [2], this version has x TYPE_FP32 [3]" in said
    assert "--to" in said
    save_affine(there.folder / "models", "affine")
    said = refused(there, "double:Double", "--to", "models/affine", *HERE)
    assert "of the backend onnxruntime, not python" in said
    (there.folder / "models" / "affine" / "config.pbtxt").unlink()
    said = refused(there, "double:Double", "--to", "models/affine", *HERE)
    assert "versions without a config.pbtxt" in said


def test_a_package_is_taken_whole_and_what_it_needs_beside_it(there: Shell) -> None:
    package = there.folder / "own" / "deep"
    package.mkdir(parents=True)
    (there.folder / "own" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (there.folder / "helper.py").write_text("FACTOR = 4.0\n")
    source = "import helper\nfrom own.deep import part\n" + folders.DOUBLE
    (package / "model.py").write_text(source.replace("2.0", "helper.FACTOR"))
    (package / "part.py").touch()
    (there.folder / "own" / "__pycache__").mkdir()
    (there.folder / "own" / "__pycache__" / "x.pyc").touch()
    said = refused(there, "own.deep.model:Double", "--to", "models/double", *HERE)
    assert "No module named 'helper' (model.py, line 1)" in said
    found = packed(
        there, "own.deep.model:Double", "--to", "models/double", *HERE, "--source", "helper.py"
    )
    assert tree(Path(found["folder"]) / "source") == [
        "helper.py",
        "own/__init__.py",
        "own/deep/__init__.py",
        "own/deep/model.py",
        "own/deep/part.py",
    ]
    shutil.rmtree(there.folder / "own")  # the version stands by itself
    (there.folder / "helper.py").unlink()
    assert answer(found["folder"], x=np.ones((1, 2), np.float32))["y"].tolist() == [[4, 4]]


def test_what_options_say_goes_before_what_the_class_says(there: Shell) -> None:
    (there.folder / "double.py").write_text("class Double:\n def predict(self, x): return x + x\n")
    ways = ("--input", "x:int64:-1,2", "--output", "y:int64:-1,2")
    found = packed(there, "double:Double", "--to", "models/double", *HERE, *ways)
    assert found["schema"] == {
        "inputs": {"x": ["int64", [-1, 2]]},
        "outputs": {"y": ["int64", [-1, 2]]},
    }
    one = np.ones((1, 3, 2), np.int64)
    assert answer(found["folder"], x=one)["y"].tolist() == (one + one).tolist()


def test_without_an_environment_it_is_left_to_the_server(there: Shell) -> None:
    """What the class says is read with this Python, if it has what the class imports."""
    arguments = ("double:Double", "--to", "models/double", "-r", "no-such-package==9", "--no-env")
    found = packed(there, *arguments)
    facts = json.loads((Path(found["folder"]) / "packed.json").read_text())
    assert facts["requirements"] == ["no-such-package==9"]
    assert facts["python"] == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert facts["schema"] == found["schema"]


def test_requirements_are_lines_or_files_of_them(there: Shell) -> None:
    (there.folder / "requirements.txt").write_text("# ours\na==1  # why\n\n--index-url x\n")
    found = packed(
        there, "double:Double", "--to", "models/double", "--no-env", "-r", "requirements.txt",
        "-r", "b[c]>2",
    )  # fmt: skip
    facts = json.loads((Path(found["folder"]) / "packed.json").read_text())
    assert facts["requirements"] == ["a==1", "--index-url x", "b[c]>2"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing:Double"], "there is no module 'nothing'"),
        (["nothing.py:Double"], "there is no file nothing.py"),
        (["double:Other"], "has no attribute 'Other'"),
        (["double"], "'double' is no module:Class"),
        (["nothing.onnx"], "'nothing.onnx' is no module:Class"),
        (["."], "without MLmodel"),
        (["double:Double", "--file", "nothing"], "there is no file nothing"),
        (["double:Double", "-r", "-e ."], "'-e .' names a file here"),
        (["double:Double", "-r", "./double.whl"], "names a file here"),
        (["double:Double", "--input", "x:float32"], "all inputs and all outputs"),
        (["double:Double", "--input", "x", "--output", "y:int64"], "--input takes NAME:DTYPE"),
        (["double:Double", "--input", "x:int64:0", "--output", "y:int64"], "not 'x:int64:0'"),
        (["double:Double", "--input", "x:complex64", "--output", "y:int64"], "complex64; a ten"),
        (["double:Double", "--python", "/nowhere/python"], "cannot run /nowhere/python"),
        (["double:Double", "--to", "models/a b"], "a model's name has letters"),
        (["model.onnx", "--source", "double.py"], "--source goes with a class"),
    ],
)
def test_what_cannot_be_packed_says_why(there: Shell, arguments: list[str], said: str) -> None:
    assert said in refused(there, "--to", "models/double", *HERE, *arguments)


# --- other kinds ---------------------------------------------------------------------------------


def test_an_onnx_file(there: Shell) -> None:
    save_affine(there.folder, "affine")
    file = there.folder / "affine" / "1" / "model.onnx"
    found = packed(there, str(file), "--to", "models/leaf")
    assert tree(there.folder / "models" / "leaf") == ["1/model.onnx", "config.pbtxt"]
    config = tritonconfig.read(there.folder / "models" / "leaf" / "config.pbtxt")
    assert (config["backend"], config["max_batch_size"]) == ("onnxruntime", 32)
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["1"]}]
    assert packed(there, str(file), "--to", "models/leaf")["version"] == "2"
    (there.folder / "bad.onnx").write_text("no model")
    assert "bad.onnx cannot be served" in refused(there, "bad.onnx", "--to", "models/bad")
    assert found["schema"] is None


def test_a_folder_of_mlflow_with_columns(there: Shell) -> None:
    folders.save_mlflow(there.folder / "wine", columns=True)
    found = packed(there, "wine", "--to", "models/wine", "--no-env")
    facts = json.loads((Path(found["folder"]) / "packed.json").read_text())
    assert (facts["python"], facts["requirements"]) == ("3.11", ["cloudpickle==3.0.0", "pandas"])
    assert (facts["loader"], facts["data"], facts["code"]) == ("seven", "weights.json", "code")
    assert found["schema"] == {
        "inputs": {"acid": ["float64", []], "color": ["string", []]},
        "outputs": {"output": ["int64", []]},
    }
    conda = "- python=3.12.4\n- pip<=24\n- scipy=1.11=py_0\n- c::joblib>=1\n- pip:\n  - a==1\n"
    (there.folder / "wine" / "conda.yaml").write_text(f"dependencies:\n{conda}")
    (there.folder / "wine" / "requirements.txt").unlink()
    found = packed(there, "wine", "--to", "models/wine", "--no-env")
    facts = json.loads((Path(found["folder"]) / "packed.json").read_text())
    assert (facts["python"], facts["requirements"]) == (
        "3.12",
        ["scipy==1.11", "joblib>=1", "a==1"],
    )


def test_a_folder_of_mlflow_with_tensors(there: Shell) -> None:
    """Of the layout alone, as MLflow is not installed here."""
    folders.save_mlflow(there.folder / "wine", columns=False)
    found = packed(there, "wine", "--to", "models/wine", *HERE)
    assert found["schema"] == {
        "inputs": {"input": ["float32", [2]]},
        "outputs": {"output": ["float32", [2]]},
    }
    answered = answer(found["folder"], input=np.ones((3, 2), np.float32))
    assert answered["output"].tolist() == [[7, 7]] * 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("python_function", "other"), "no flavour python_function"),
        (("signature", "nothing"), "its signature says no inputs"),
        (('"float32", "shape": [-1, 2]', '"float32", "shape": [3, 2]'), "first side must be -1"),
        (("flavors:", "flavors: ["), "MLmodel cannot be read"),
    ],
)
def test_a_folder_of_mlflow_that_cannot_be_served(
    there: Shell, change: tuple[str, str], said: str
) -> None:
    folders.save_mlflow(there.folder / "wine", columns=False)
    file = there.folder / "wine" / "MLmodel"
    file.write_text(file.read_text().replace(*change))
    assert said in refused(there, "wine", "--to", "models/wine", *HERE)


def test_a_torchscript_file(there: Shell) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is large, and not needed for the rest")
    torch.jit.script(torch.nn.Identity()).save(str(there.folder / "same.pt"))
    assert "--input image" in refused(there, "same.pt", "--to", "models/same", *HERE)
    ways = ("--input", "x:float32:2", "--output", "y:float32:2")
    found = packed(there, "same.pt", "--to", "models/same", *HERE, *ways)
    assert answer(found["folder"], x=np.ones((3, 2), np.float32))["y"].tolist() == [[1, 1]] * 3
