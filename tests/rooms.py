"""The rooms of the tree and which way their imports run: `python -m tests.rooms` prints them.

Every import counts: those for type checkers alone and those inside of functions too, for what needs
them to be understood is the reader.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mqinfer"
# Served by Triton in a process of its own; no module of ours imports it.
APART = "onnxruntime_backend"

Graph = Mapping[str, set[str]]


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if APART not in path.parts:
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def imported(path: Path) -> Sequence[str]:
    """What a file imports, wherever it stands; `from a import b` gives a.b and a."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
            found += (f"{node.module}.{alias.name}" for alias in node.names)
    return found


def graph() -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports.

    A package is left out where one of its modules is named: `from mqinfer.flow import job` is about
    `job`.
    """
    known = modules()
    found = {}
    for name, path in known.items():
        wanted = {one for one in imported(path) if one in known} - {name}
        found[name] = {
            one for one in wanted if not any(other.startswith(f"{one}.") for other in wanted)
        }
    return found


def circle(imports: Graph) -> list[str]:
    """The modules of one circle of imports, or nothing."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def room_of(module: str) -> str:
    """The room of a module; a module that stands above the rooms is one by itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else module


def between_rooms(imports: Graph) -> dict[str, set[str]]:
    """Room -> the rooms that it imports."""
    found: dict[str, set[str]] = {}
    for module, others in imports.items():
        room = room_of(module)
        found.setdefault(room, set()).update({room_of(other) for other in others} - {room})
    return found


def main() -> int:
    """Print the rooms, the largest first, and whether there is a circle; 1 if there is."""
    files: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    for module, path in modules().items():
        parts = module.split(".")
        inside = path.name == "__init__.py" or len(parts) > 2
        room = f"{parts[1]}/" if inside and len(parts) > 1 else "(above the rooms)"
        files[room] += 1
        lines[room] += len(path.read_text().splitlines())
    for room, count in lines.most_common():
        print(f"{room:20}{files[room]:4} files{count:7,} lines")
    print(f"{'in all':20}{files.total():4} files{lines.total():7,} lines")
    found = circle(graph())
    print("no circle of imports" if not found else "circle: " + " -> ".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
