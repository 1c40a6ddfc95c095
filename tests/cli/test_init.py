"""`mqinfer init`: each template is an app that passes its own tests, and can be deployed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mqinfer.cli.errors import ExitCode
from tests.support.cli import TIMEOUT, Shell

ROOT = Path(__file__).parents[2]
# In the process that runs the app's own tests: another one would take as long again.
DEPLOYS = """
from pathlib import Path

import compose_spec
import pytest
from mqinfer.cli import main


@pytest.mark.parametrize("target", ["local", "compose", "k8s"])
def test_it_can_be_deployed(target, capsys):
    assert main(["deploy", "render", "app:app", "deploy.toml", "--target", target]) == 0


def test_its_containers_are_what_compose_takes():
    compose_spec.PyCompose.from_yaml(Path("compose.yaml").read_text())


def test_it_says_what_it_is(capsys):
    assert main(["graph", "app:app"]) == 0
"""


@pytest.mark.parametrize("template", ["pipeline", "requests", "search", "monitor"])
def test_a_template_passes_its_own_tests(template: str, shell: Shell) -> None:
    code, out, err = shell.run("init", "shop", "--template", template)
    assert code == ExitCode.DONE, err
    folder = shell.folder / "shop"
    for name in ("app.py", "model.py", "test_app.py", "Dockerfile", "compose.yaml", "deploy.toml"):
        assert (folder / name).is_file(), name
        assert "myapp" not in (folder / name).read_text()
    assert (folder / ".gitignore").is_file()
    assert list(folder.glob("triton_models/*/1/packed.json"))
    readme = (folder / "README.md").read_text()
    assert readme in out
    assert len([line for line in readme.splitlines() if line.strip()]) <= 10

    (folder / "test_deploys.py").write_text(DEPLOYS)
    # Its folder is a project of its own, with what pytest is told there.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:schemathesis", "-p", "no:cacheprovider"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 passed" in done.stdout


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("My-Shop", "small letters, digits and _"),
        ("dead", "not 'dead'"),
        ("taken", "taken is there, and not empty"),
    ],
)
def test_nothing_is_made_where_it_cannot_be(name: str, says: str, shell: Shell) -> None:
    (shell.folder / "taken").mkdir()
    (shell.folder / "taken" / "mine").touch()
    code, _, err = shell.run("init", name)
    assert code == ExitCode.USAGE
    assert says in err
    assert [path.name for path in (shell.folder / "taken").iterdir()] == ["mine"]
