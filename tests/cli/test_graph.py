"""The wiring as a drawing, in every format."""

import xml.etree.ElementTree as ET

import pytest

from mqinfer.cli.svg import svg
from mqinfer.operate.graph import Edge, Graph, Node
from tests.support.cli import Shell

SOURCE = """
from __future__ import annotations
from collections.abc import AsyncIterator
from mqinfer import App, Message, Row

app = App("plants")
detector = app.model("leaf_detector", version="2")

class DroneImage(Message, subject="drone_image"):
    a: str

class Leaf(Message, subject="leaf"):
    a: str

class Grade(Row, table="disease_grade"):
    a: str

@app.stage
async def crop(photo: DroneImage) -> AsyncIterator[Leaf]:
    await detector(image=1)
    yield Leaf("")

@app.stage
async def grade(leaf: Leaf) -> Grade | Leaf:
    return Grade("")
"""


def test_json(shell: Shell) -> None:
    graph = shell.json("graph", shell.write(SOURCE))
    names = {node["id"]: (node["kind"], node["name"]) for node in graph["nodes"]}
    edges = {
        (names[edge["source"]][1], names[edge["target"]][1], edge["call"])
        for edge in graph["edges"]
    }
    assert set(names.values()) == {
        ("subject", "drone_image"),
        ("stage", "crop"),
        ("model", "leaf_detector"),
        ("subject", "leaf"),
        ("stage", "grade"),
        ("table", "disease_grade"),
    }
    assert edges == {
        ("drone_image", "crop", False),
        ("leaf_detector", "crop", True),
        ("crop", "leaf", False),
        ("leaf", "grade", False),
        ("grade", "leaf", False),
        ("grade", "disease_grade", False),
    }


def test_mermaid_and_dot(shell: Shell) -> None:
    app = shell.write(SOURCE)
    _, mermaid, _ = shell.run("graph", app)
    assert mermaid.startswith("flowchart LR\n")
    assert '{{"leaf_detector"}}:::model' in mermaid
    assert "-.->" in mermaid
    _, dot, _ = shell.run("graph", app, "--format", "dot")
    assert dot.startswith('digraph "plants" {')
    assert "[style=dashed]" in dot


def test_svg_to_a_file(shell: Shell) -> None:
    code, out, _ = shell.run("graph", shell.write(SOURCE), "-f", "svg", "-o", "drawn.svg")
    assert (code, out) == (0, "")
    root = ET.parse(shell.folder / "drawn.svg").getroot()
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"crop", "grade", "leaf", "drone_image", "disease_grade", "leaf_detector"} <= texts


def boxes(drawing: str) -> list[tuple[float, float, float, float]]:
    found = []
    for group in ET.fromstring(drawing).iter("{http://www.w3.org/2000/svg}g"):
        rect = group.find("{http://www.w3.org/2000/svg}rect")
        assert rect is not None
        found.append(tuple(float(rect.attrib[name]) for name in ("x", "y", "width", "height")))
    return found  # type: ignore[return-value]


@pytest.mark.parametrize(
    "edges",
    [
        [],
        [("a", "b"), ("b", "a")],
        [("a", "a")],
        [("a", "b"), ("b", "c"), ("c", "d"), ("a", "d"), ("d", "b")],
        [(x, y) for x in "abc" for y in "defgh"],
    ],
    ids=["no edges", "cycle", "self", "long and back", "full"],
)
def test_no_boxes_overlap(edges: list[tuple[str, str]]) -> None:
    nodes = tuple(Node(name, "stage", f"<{name}> & co") for name in "abcdefgh")
    drawing = svg(Graph("g", nodes, tuple(Edge(*edge) for edge in edges)))
    found = boxes(drawing)
    assert len(found) == len(nodes)
    for i, (x, y, w, h) in enumerate(found):
        assert x >= 0
        assert y >= 0
        for x2, y2, w2, h2 in found[:i]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y
    assert ET.fromstring(drawing).tag.endswith("svg")


def test_wrong_wiring_is_told(shell: Shell) -> None:
    app = shell.write(SOURCE.replace("-> Grade | Leaf", "-> int"))
    code, _, err = shell.run("graph", app)
    assert code == 2
    assert "stage grade: returns int" in err
