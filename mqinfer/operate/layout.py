"""Layout: where the nodes and edges of a graph lie in a layered drawing, without Graphviz. Pure.

The usual four steps (Sugiyama): edges that close a cycle are turned around, nodes get layers by
their longest path, layers are ordered by the mean place of their neighbours, and every node is
moved towards them. An edge over several layers goes through a point in each.

Graphviz crosses fewer lines, but most machines have no `dot`, and the wheel that brings it takes
110 MB: this takes a millisecond. Whoever has it writes `-f dot | dot -Tsvg`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mqinfer.operate.graph import Graph, Node

MARGIN = 20.0
_CHAR, _HEIGHT, _GAP_X, _GAP_Y = 7.4, 34.0, 56.0, 16.0
_SWEEPS = 12

Size = Callable[["Node"], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """An edge as it is drawn.

    Attributes:
        path: of SVG, from the right of one box to the left of another.
        back: whether it leads against the other edges, so that its arrow is at the beginning.
        call: whether it is the call of a model.
        later: whether a timer lies on it.
    """

    path: str
    back: bool = False
    call: bool = False
    later: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """Where all lies.

    Attributes:
        width: of the drawing, in pixels.
        height: of it.
        boxes: of the nodes, by their ids; `y` is their middle.
        lines: the edges.
    """

    width: float
    height: float
    boxes: Mapping[str, Box]
    lines: tuple[Line, ...]


@dataclass(slots=True)
class Box:
    """A node, or the point where a long edge crosses a layer."""

    id: str
    width: float = 0.0
    height: float = 4.0
    layer: int = 0
    x: float = 0.0
    y: float = 0.0
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


def by_name(node: Node) -> tuple[float, float]:
    """The size of a box with a name in it."""
    return max(48.0, _CHAR * len(node.name) + 24), _HEIGHT


def layout(graph: Graph, size: Size = by_name) -> Layout:
    """Where the nodes and edges of a graph lie.

    Args:
        graph: with one node at least.
        size: gives the width and height of a node, in pixels.
    """
    boxes = {node.id: Box(node.id, *size(node)) for node in graph.nodes}
    edges = {(e.source, e.target): e for e in graph.edges if e.source != e.target}
    turned = _back_edges(list(boxes), list(edges))
    forward = {(t, s) if (s, t) in turned else (s, t) for s, t in edges}
    _layer(boxes, forward)
    paths = _split(boxes, forward)
    _place(boxes, _order(boxes))
    lines = []
    for (source, target), edge in edges.items():
        back = (source, target) in turned
        chain = paths[(target, source) if back else (source, target)]
        path = _curve([boxes[box] for box in chain])
        lines.append(Line(path, back, edge.call, edge.later))
    return Layout(
        max(box.x + box.width for box in boxes.values()) + MARGIN,
        max(box.y + box.height / 2 for box in boxes.values()) + MARGIN,
        {node.id: boxes[node.id] for node in graph.nodes},
        tuple(lines),
    )


def _back_edges(nodes: list[str], edges: list[tuple[str, str]]) -> set[tuple[str, str]]:
    """Edges that close a cycle in a walk from the first node on."""
    after: dict[str, list[str]] = defaultdict(list)
    for source, target in edges:
        after[source].append(target)
    found: set[tuple[str, str]] = set()
    done: set[str] = set()
    for start in nodes:
        path, todo = [start], [iter(after[start])]
        if start in done:
            continue
        while todo:
            target = next(todo[-1], "")
            if not target:
                todo.pop()
                done.add(path.pop())
            elif target in path:
                found.add((path[-1], target))
            elif target not in done:
                path.append(target)
                todo.append(iter(after[target]))
    return found


def _layer(boxes: dict[str, Box], forward: set[tuple[str, str]]) -> None:
    for _ in boxes:  # longest paths settle within so many rounds
        for source, target in forward:
            boxes[target].layer = max(boxes[target].layer, boxes[source].layer + 1)
    # What nothing leads to (an input, a model) stands right before its first reader.
    targets = {target for _, target in forward}
    for box in boxes.values():
        readers = [boxes[target].layer for source, target in forward if source == box.id]
        if box.id not in targets and readers:
            box.layer = min(readers) - 1


def _split(
    boxes: dict[str, Box], forward: set[tuple[str, str]]
) -> dict[tuple[str, str], list[str]]:
    """Give every edge a chain of boxes, one a layer."""
    paths = {}
    for source, target in sorted(forward):
        chain = [source]
        for layer in range(boxes[source].layer + 1, boxes[target].layer):
            point = Box(f"{source}>{target}>{layer}", layer=layer)
            boxes[point.id] = point
            chain.append(point.id)
        chain.append(target)
        for one, other in pairwise(chain):
            boxes[one].after.append(other)
            boxes[other].before.append(one)
        paths[source, target] = chain
    return paths


def _order(boxes: dict[str, Box]) -> list[list[Box]]:
    """The layers, each in an order with few crossings."""
    layers: list[list[Box]] = [[] for _ in range(max(b.layer for b in boxes.values()) + 1)]
    for box in boxes.values():
        layers[box.layer].append(box)
    place = {box.id: float(i) for layer in layers for i, box in enumerate(layer)}
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for layer in layers if down else reversed(layers):
            means = {}
            for box in layer:
                others = (box.before or box.after) if down else (box.after or box.before)
                means[box.id] = sum(place[o] for o in others) / len(others) if others else 0.0
            layer.sort(key=lambda box: means[box.id])
            place.update((box.id, float(i)) for i, box in enumerate(layer))
    return layers


def _place(boxes: dict[str, Box], layers: list[list[Box]]) -> None:
    x = MARGIN
    for layer in layers:
        width = max((box.width for box in layer), default=0.0)
        y = 0.0
        for box in layer:
            box.x = x + (width - box.width) / 2
            box.y = y + box.height / 2
            y += box.height + _GAP_Y
        x += width + _GAP_X
    for sweep in range(2 * _SWEEPS):
        for layer in layers if sweep % 2 else reversed(layers):
            _relax(boxes, layer)
    top = min(box.y - box.height / 2 for box in boxes.values())
    for box in boxes.values():
        box.y += MARGIN - top


def _relax(boxes: dict[str, Box], layer: list[Box]) -> None:
    """Move the boxes of a layer towards their neighbours, keeping order and distance."""
    wanted = []
    for box in layer:
        others = [boxes[other].y for other in (*box.before, *box.after)]
        wanted.append(sum(others) / len(others) if others else box.y)
    # The mean of packing downwards and packing upwards keeps the layer where it wants to be.
    down, up = list(wanted), list(wanted)
    for i in range(1, len(layer)):
        down[i] = max(down[i], down[i - 1] + _distance(layer[i - 1], layer[i]))
    for i in range(len(layer) - 2, -1, -1):
        up[i] = min(up[i], up[i + 1] - _distance(layer[i], layer[i + 1]))
    for box, one, other in zip(layer, down, up, strict=True):
        box.y = (one + other) / 2


def _distance(one: Box, other: Box) -> float:
    return (one.height + other.height) / 2 + _GAP_Y


def _curve(chain: list[Box]) -> str:
    """A smooth line from the right side of the first box to the left side of the last."""
    x, y = chain[0].x + chain[0].width, chain[0].y
    d = f"M{x:.1f} {y:.1f}"
    for box in chain[1:]:
        half = (box.x - x) / 2
        d += f"C{x + half:.1f} {y:.1f} {x + half:.1f} {box.y:.1f} {box.x:.1f} {box.y:.1f}"
        x, y = box.x, box.y
    return d
