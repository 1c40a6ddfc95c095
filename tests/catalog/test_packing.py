"""Packing what a `models.toml` lists: once, again when it changed, and by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mqinfer.adapters import tritonconfig
from mqinfer.errors import ConfigurationError
from tests.catalog import support
from tests.support.cli import Shell


def versions(path: Path, model: str) -> list[str]:
    folder = path.parent / "triton_models" / model
    return sorted(one.name for one in folder.iterdir() if one.is_dir())


def test_what_did_not_change_is_left_alone(tmp_path: Path) -> None:
    path = support.write(tmp_path)
    assert [(one.model, one.folder.name, one.written) for one in support.packed(path)] == [
        ("double", "1", True),
        ("join-words", "1", True),
    ]
    facts = json.loads((tmp_path / "triton_models/double/1/packed.json").read_text())
    assert facts["rejects"] == ["ValueError"]
    assert facts["about"] == {
        "doc": "Doubles a number.\n\nAnd says so.",
        "inputs": {"x": {"ge": 0, "le": 100, "description": "apples"}},
        "outputs": {"kind": {"one_of": ["even", "odd"]}},
    }
    assert [one.written for one in support.packed(path)] == [False, False]
    assert versions(path, "double") == ["1"]

    # Other words in the file that are not about what is packed change nothing; others do.
    path.write_text(support.TOML.replace("attempts = 1", "attempts = 2"))
    assert [one.written for one in support.packed(path)] == [False, False]
    path.write_text(support.TOML.replace('rejects = ["ValueError"]', "rejects = []"))
    assert [one.written for one in support.packed(path)] == [True, False]
    classes = tmp_path / "classes.py"
    classes.write_text(classes.read_text().replace("apples", "pears"))
    assert [one.written for one in support.packed(path)] == [True, True]
    assert versions(path, "double") == ["1", "2", "3"]


def test_the_batch_is_the_one_that_the_file_says_now(tmp_path: Path) -> None:
    path = support.write(tmp_path)
    support.packed(path)
    config = tmp_path / "triton_models/double/config.pbtxt"
    config.write_text(config.read_text() + "# mine\n")
    path.write_text(support.TOML.replace("max_batch = 8", "max_batch = 64"))
    assert [one.written for one in support.packed(path)] == [False, False]
    assert tritonconfig.read(config)["max_batch_size"] == 64
    assert config.read_text().endswith("# mine\n")


@pytest.mark.parametrize(
    ("was", "instead", "said"),
    [
        ("classes:Double", "glasses:Double", "there is no module 'glasses'"),
        ("classes:Double", "classes:Triple", "has no attribute 'Triple'"),
        ("classes:Double", "classes:TooLarge", "class TooLarge has no method `predict`"),
    ],
)
def test_a_class_that_cannot_be_packed(tmp_path: Path, was: str, instead: str, said: str) -> None:
    path = support.write(tmp_path, support.TOML.replace(was, instead))
    with pytest.raises(ConfigurationError) as error:
        support.packed(path)
    assert str(error.value).startswith("models.toml: models.double: ")
    assert said in str(error.value)
    assert not (tmp_path / "triton_models/double").exists()


def test_a_class_without_a_schema(tmp_path: Path) -> None:
    path = support.write(tmp_path)
    classes = tmp_path / "classes.py"
    classes.write_text(classes.read_text().replace('inputs = {"x"', 'takes = {"x"'))
    with pytest.raises(ConfigurationError, match=r"models.double: .*does not say its inputs"):
        support.packed(path)


def test_the_command_line(shell: Shell) -> None:
    support.write(shell.folder)
    found = shell.json("models", "pack", "models.toml")
    assert [(one["model"], one["version"], one["written"]) for one in found] == [
        ("double", "1", True),
        ("join-words", "1", True),
    ]
    code, out, _ = shell.run("models", "pack", "models.toml")
    assert code == 0
    assert "unchanged: double version 1" in out
    code, _, err = shell.run("models", "pack", "models.toml", "--to", "elsewhere")
    assert code == 2
    assert "models.toml says all of that itself" in err
    code, _, err = shell.run("models", "pack", "classes:Double")
    assert code == 2
    assert "--to is missing" in err
