"""A layered drawing of a graph as SVG, without Graphviz.

The usual four steps (Sugiyama): edges that close a cycle are turned around, nodes get layers by
their longest path, layers are ordered by the mean place of their neighbours, and every node is
moved towards them. An edge over several layers goes through a point in each.

Graphviz crosses fewer lines, but most machines have no `dot`, and the wheel that brings it takes
110 MB: this takes a millisecond. Whoever has it writes `-f dot | dot -Tsvg`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mqinfer.operate.graph import Graph

_LOOKS = {  # fill, stroke, corner radius
    "subject": ("#f3f4f6", "#6b7280", 15),
    "stage": ("#dbeafe", "#1d4ed8", 3),
    "model": ("#f3e8ff", "#7e22ce", 3),
    "table": ("#dcfce7", "#15803d", 3),
}
_CHAR, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 7.4, 34.0, 56.0, 16.0, 20.0
_SWEEPS = 12


@dataclass(slots=True)
class _Box:
    """A node, or the point where a long edge crosses a layer."""

    id: str
    width: float = 0.0
    height: float = 4.0
    layer: int = 0
    x: float = 0.0
    y: float = 0.0
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


def svg(graph: Graph) -> str:
    """The drawing, complete with a legend."""
    boxes = {
        node.id: _Box(node.id, max(48.0, _CHAR * len(node.name) + 24), _HEIGHT)
        for node in graph.nodes
    }
    edges = {(e.source, e.target): e.call for e in graph.edges if e.source != e.target}
    turned = _back_edges(list(boxes), list(edges))
    forward = {(t, s) if (s, t) in turned else (s, t) for s, t in edges}
    _layer(boxes, forward)
    paths = _split(boxes, forward)
    layers = _order(boxes)
    _place(boxes, layers)
    return _draw(graph, boxes, edges, turned, paths)


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


def _layer(boxes: dict[str, _Box], forward: set[tuple[str, str]]) -> None:
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
    boxes: dict[str, _Box], forward: set[tuple[str, str]]
) -> dict[tuple[str, str], list[str]]:
    """Give every edge a chain of boxes, one a layer."""
    paths = {}
    for source, target in sorted(forward):
        chain = [source]
        for layer in range(boxes[source].layer + 1, boxes[target].layer):
            point = _Box(f"{source}>{target}>{layer}", layer=layer)
            boxes[point.id] = point
            chain.append(point.id)
        chain.append(target)
        for one, other in pairwise(chain):
            boxes[one].after.append(other)
            boxes[other].before.append(one)
        paths[source, target] = chain
    return paths


def _order(boxes: dict[str, _Box]) -> list[list[_Box]]:
    """The layers, each in an order with few crossings."""
    layers: list[list[_Box]] = [[] for _ in range(max(b.layer for b in boxes.values()) + 1)]
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


def _place(boxes: dict[str, _Box], layers: list[list[_Box]]) -> None:
    x = _MARGIN
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
        box.y += _MARGIN - top


def _relax(boxes: dict[str, _Box], layer: list[_Box]) -> None:
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


def _distance(one: _Box, other: _Box) -> float:
    return (one.height + other.height) / 2 + _GAP_Y


def _draw(
    graph: Graph,
    boxes: dict[str, _Box],
    edges: dict[tuple[str, str], bool],
    turned: set[tuple[str, str]],
    paths: dict[tuple[str, str], list[str]],
) -> str:
    kinds = list(dict.fromkeys(node.kind for node in graph.nodes))
    width = max(box.x + box.width for box in boxes.values()) + _MARGIN
    width = max(width, 2 * _MARGIN + 84 * len(kinds))
    height = max(box.y + box.height / 2 for box in boxes.values()) + _MARGIN + 26
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" font-family="system-ui,sans-serif" '
        f'font-size="13"><title>{escape(graph.name)}</title>',
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto-start-reverse"><path d="M0 0 8 4 0 8z" fill="#6b7280"/>'
        "</marker></defs>",
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for (source, target), call in edges.items():
        back = (source, target) in turned
        chain = paths[(target, source) if back else (source, target)]
        dash = ' stroke-dasharray="4 3"' if call else ""
        arrow = "marker-start" if back else "marker-end"
        parts.append(
            f'<path d="{_curve([boxes[box] for box in chain])}" fill="none" stroke="#6b7280"'
            f'{dash} {arrow}="url(#a)"/>'
        )
    for node in graph.nodes:
        box = boxes[node.id]
        fill, stroke, radius = _LOOKS[node.kind]
        title = f"{node.kind} {node.name}" + (f" ({node.note})" if node.note else "")
        parts.append(
            f"<g><title>{escape(title)}</title>"
            f'<rect x="{box.x:.1f}" y="{box.y - box.height / 2:.1f}" width="{box.width:.1f}" '
            f'height="{box.height:.1f}" rx="{radius}" fill="{fill}" stroke="{stroke}"/>'
            f'<text x="{box.x + box.width / 2:.1f}" y="{box.y + 4.5:.1f}" text-anchor="middle">'
            f"{escape(node.name)}</text></g>"
        )
    for i, kind in enumerate(kinds):
        fill, stroke, radius = _LOOKS[kind]
        x, y = _MARGIN + 84 * i, height - 22
        parts.append(
            f'<rect x="{x}" y="{y:.0f}" width="12" height="12" rx="{min(radius, 6)}" fill="{fill}" '
            f'stroke="{stroke}"/><text x="{x + 18}" y="{y + 10:.0f}" font-size="11" '
            f'fill="#4b5563">{kind}</text>'
        )
    return "\n".join([*parts, "</svg>"])


def _curve(chain: list[_Box]) -> str:
    """A smooth line from the right side of the first box to the left side of the last."""
    x, y = chain[0].x + chain[0].width, chain[0].y
    d = f"M{x:.1f} {y:.1f}"
    for box in chain[1:]:
        half = (box.x - x) / 2
        d += f"C{x + half:.1f} {y:.1f} {x + half:.1f} {box.y:.1f} {box.x:.1f} {box.y:.1f}"
        x, y = box.x, box.y
    return d
