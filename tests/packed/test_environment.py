"""Environments: made once, whole or not at all, and what is said when one cannot be made."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from mqinfer.packed.runtime import environment
from mqinfer.packed.runtime.environment import Environment, EnvironmentFailed, find_python

OURS = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What is called to make environments in a cache of the test's own; the last word is a file."""
    called: list[list[str]] = []

    def call(command: list[str]) -> None:
        called.append(command)
        if "venv" in command:
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.symlink_to(sys.executable)
        elif "broken" in Path(command[-1]).read_text():
            raise EnvironmentFailed("its environment cannot be made: no such package")

    monkeypatch.setenv("MQINFER_ENVIRONMENTS", str(tmp_path / "cache"))
    monkeypatch.setattr(environment, "_call", call)
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    monkeypatch.setattr(environment, "find_python", lambda wanted: f"/python{wanted}")
    return called


def test_one_is_made_for_each_set_of_requirements(made: list[list[str]], tmp_path: Path) -> None:
    first = Environment(OURS, ("a", "b==1")).ensure()
    assert [command[2] for command in made] == ["venv", "pip"]
    assert Path(first).parent.parent.parent == tmp_path / "cache"
    listed = Path(first).parent.parent / "requirements.txt"
    assert listed.read_text() == "a\nb==1\nnumpy\n"  # which the model's side needs
    assert Environment(OURS, ("b==1", "a")).ensure() == first
    assert len(made) == 2
    others = {
        Environment(OURS, ("a", "b==2")).ensure(),
        Environment("3.99", ("a", "b==1")).ensure(),
        Environment(OURS, ("numpy<2",)).ensure(),
    }
    assert len({first, *others}) == 4
    assert "numpy<2\n" in [path.read_text() for path in tmp_path.rglob("requirements.txt")]


def test_half_of_one_is_never_used(made: list[list[str]], tmp_path: Path) -> None:
    wanted = Environment(OURS, ("broken",))
    with pytest.raises(EnvironmentFailed, match="no such package"):
        wanted.ensure()
    assert not (tmp_path / "cache" / wanted.key).exists()
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]
    # Nor one that a process left, which was killed while it made it.
    (tmp_path / "cache" / f"{wanted.key}.part" / "bin").mkdir(parents=True)
    with pytest.raises(EnvironmentFailed):  # from the beginning
        wanted.ensure()


def test_several_at_once_make_one(made: list[list[str]]) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(Environment(OURS, ("a",)).ensure()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(made) == 2


def test_one_whose_python_is_gone_is_made_anew(made: list[list[str]]) -> None:
    python = Path(Environment(OURS, ("a",)).ensure())
    python.unlink()
    python.symlink_to("/nowhere/python")
    assert Environment(OURS, ("a",)).ensure() == str(python)
    assert python.exists()
    assert len(made) == 4


def test_a_python_that_is_there_is_taken_as_it_is(made: list[list[str]]) -> None:
    assert Environment("/opt/conda/bin/python").ensure() == "/opt/conda/bin/python"
    assert not made
    assert Environment("/opt/conda/bin/python", ("a",)).ensure() != "/opt/conda/bin/python"


def test_a_python_is_found_by_its_version() -> None:
    assert find_python("/a/python") == "/a/python"
    assert Path(find_python(OURS)).exists()
    with pytest.raises(EnvironmentFailed, match=r"no Python 9\.99 on the PATH.*--python"):
        find_python("9.99")


def test_what_the_installer_says_is_told() -> None:
    code = "import sys; print('collecting\\nERROR: no such package'); sys.exit(1)"
    with pytest.raises(EnvironmentFailed, match="cannot be made: collecting\nERROR: no such"):
        environment._call([sys.executable, "-c", code])


def test_a_cache_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MQINFER_ENVIRONMENTS", str(tmp_path / "file" / "cache"))
    with pytest.raises(EnvironmentFailed, match="MQINFER_ENVIRONMENTS names another"):
        Environment(OURS, ("a",)).ensure()
