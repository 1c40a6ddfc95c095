"""`mqinfer graph`: the wiring as a drawing."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mqinfer.cli import options
from mqinfer.cli.load import load_app
from mqinfer.errors import ConfigurationError

if TYPE_CHECKING:
    from mqinfer.operate.graph import Edge, Graph


class Format(StrEnum):
    """How the graph is written."""

    MERMAID = "mermaid"
    DOT = "dot"
    SVG = "svg"
    JSON = "json"


def graph(
    app: options.AppName,
    form: Annotated[
        Format, typer.Option("--format", "-f", help="mermaid, dot, svg or json.")
    ] = Format.MERMAID,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Instead of stdout.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Draw stages, subjects, models and tables. Asks no server.

    \b
      mqinfer graph plants:app                          for Markdown
      mqinfer graph plants:app -f svg -o pipeline.svg   needs no other program
      mqinfer graph plants:app -f dot | dot -Tpng > pipeline.png
    """
    from mqinfer.operate.graph import graph_of

    drawn = graph_of(load_app(app))
    if not drawn.nodes:
        raise ConfigurationError(f"app {drawn.name} has no stages: declare one with @app.stage")
    form = Format.JSON if as_json else form
    if form is Format.SVG:
        from mqinfer.cli.svg import svg

        text = svg(drawn)
    else:
        text = {Format.MERMAID: mermaid, Format.DOT: dot, Format.JSON: as_text}[form](drawn)
    if output is None:
        print(text)
    else:
        output.write_text(text + "\n", encoding="utf-8")


def mermaid(graph: Graph) -> str:
    """A Mermaid flowchart."""
    shapes = {
        "subject": ("([", "])"),
        "stage": ("[", "]"),
        "model": ("{{", "}}"),
        "table": ("[(", ")]"),
    }
    lines = ["flowchart LR"]
    for node in graph.nodes:
        left, right = shapes[node.kind]
        label = node.name.replace('"', "#quot;")
        lines.append(f'  {node.id}{left}"{label}"{right}:::{node.kind}')
    for edge in graph.edges:
        arrow = "-.->" if edge.call else "-- later -->" if edge.later else "-->"
        lines.append(f"  {edge.source} {arrow} {edge.target}")
    lines += [
        "  classDef stage fill:#dbeafe,stroke:#1d4ed8,color:#111",
        "  classDef subject fill:#f3f4f6,stroke:#6b7280,color:#111",
        "  classDef model fill:#f3e8ff,stroke:#7e22ce,color:#111",
        "  classDef table fill:#dcfce7,stroke:#15803d,color:#111",
    ]
    return "\n".join(lines)


def dot(graph: Graph) -> str:
    """A Graphviz digraph."""
    looks = {
        "subject": "shape=box, style=rounded",
        "stage": 'shape=box, style=filled, fillcolor="#dbeafe"',
        "model": 'shape=hexagon, style=filled, fillcolor="#f3e8ff"',
        "table": 'shape=cylinder, style=filled, fillcolor="#dcfce7"',
    }
    lines = [f"digraph {json.dumps(graph.name)} {{", "  rankdir=LR; node [fontname=sans];"]
    lines += [
        f"  {node.id} [label={json.dumps(node.name)}, {looks[node.kind]}];" for node in graph.nodes
    ]
    lines += [f"  {edge.source} -> {edge.target}{_look(edge)};" for edge in graph.edges]
    return "\n".join([*lines, "}"])


def _look(edge: Edge) -> str:
    if edge.call:
        return " [style=dashed]"
    return " [label=later]" if edge.later else ""


def as_text(graph: Graph) -> str:
    """Nodes and edges as JSON."""
    nodes = [{"id": n.id, "kind": n.kind, "name": n.name, "note": n.note} for n in graph.nodes]
    edges = [
        {"source": e.source, "target": e.target, "call": e.call, "later": e.later}
        for e in graph.edges
    ]
    return json.dumps({"app": graph.name, "nodes": nodes, "edges": edges}, indent=2)
