"""The tree's own rules: which way imports run, what importing costs, how large a module may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mqinfer"
# The one file, or folder, that may import each client of a server.
OWNERS = {
    "nats": "adapters/natsclient.py",
    "tritonclient": "adapters/triton.py",
    "clickhouse_connect": "adapters/clickhouse.py",
    "obstore": "adapters/cloudblobs.py",
    "chdb": "stack/",
}
HEAVY = ("nats", "tritonclient", "clickhouse_connect", "cv2", "chdb", "numpy", "uvicorn")


def _imports(path: Path) -> set[str]:
    """Every module that a file imports, except for type checkers alone."""
    found: set[str] = set()

    def visit(nodes: list[ast.stmt]) -> None:
        for node in nodes:
            for child in ast.walk(node):
                if isinstance(child, ast.Import):
                    found.update(alias.name for alias in child.names)
                elif isinstance(child, ast.ImportFrom) and child.module:
                    found.add(child.module)

    body = []
    for node in ast.parse(path.read_text()).body:
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not typing_only:
            body.append(node)
    visit(body)
    return found


def _modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "onnxruntime_backend" not in str(path))


@pytest.mark.parametrize("client", OWNERS)
def test_one_place_imports_each_client(client: str) -> None:
    users = [
        str(path.relative_to(PACKAGE))
        for path in _modules()
        if any(name.split(".")[0] == client for name in _imports(path))
    ]
    assert users
    assert all(user.startswith(OWNERS[client]) for user in users), users


def test_the_engine_imports_no_adapter() -> None:
    for path in _modules():
        if path.parent.name == "engine":
            outside = {
                name
                for name in _imports(path)
                if name.startswith(("mqinfer.adapters", "mqinfer.stack", "mqinfer.cli"))
                or name in ("mqinfer.wiring", "mqinfer.client", "mqinfer.testing")
            }
            assert not outside, f"{path}: {outside}"


def test_declarations_import_no_engine() -> None:
    for name in ("errors", "message", "codec", "stage", "blob", "identity", "context", "model"):
        inner = {
            module
            for module in _imports(PACKAGE / f"{name}.py")
            if module.startswith(("mqinfer.engine", "mqinfer.adapters", "mqinfer.stack"))
        }
        assert not inner, f"{name}: {inner}"


def test_importing_mqinfer_loads_nothing_heavy() -> None:
    code = f"import sys, mqinfer; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_modules_stay_small() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in [*_modules(), *(ROOT / "stages").rglob("*.py")]
        if (lines := len(path.read_text().splitlines())) > 450
    }
    assert not long
