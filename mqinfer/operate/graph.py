"""Graph: an app's stages, subjects, models and tables as nodes and edges. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.message import Message

Kind = Literal["subject", "stage", "model", "table"]


@dataclass(frozen=True, slots=True)
class Node:
    """One thing of an app.

    Attributes:
        id: unique, letters, digits and _ only.
        kind: what it is.
        name: as the user wrote it.
        note: a second line, or "".
    """

    id: str
    kind: Kind
    name: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """Messages go from `source` to `target`; where one is a model, it is called.

    `later` are those of a timer.
    """

    source: str
    target: str
    call: bool = False
    later: bool = False


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in the order of their declaration, and the edges between them."""

    name: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def graph_of(app: App) -> Graph:
    """The graph of an app; a row is shown as its table, and a join between what it waits for.

    Raises:
        WiringError: the app's wiring is wrong.
    """
    ids: dict[object, str] = {}
    nodes: list[Node] = []
    edges: dict[Edge, None] = {}

    def node(key: object, kind: Kind, name: str, note: str = "") -> str:
        if key not in ids:
            ids[key] = f"{kind}{len(ids)}"
            nodes.append(Node(ids[key], kind, name, note))
        return ids[key]

    def of_message(kind: type[Message]) -> str:
        info = kind.__mqinfer__
        if info.table is not None:
            return node(kind, "table", info.table, kind.__name__)
        return node(kind, "subject", info.subject, kind.__name__)

    for stage in app.stages.values():
        join = stage.join
        if stage.clock is not None:
            reads = [node(("clock", stage.name), "subject", stage.clock.text, "Tick")]
        else:
            kinds = (join.root, *join.of) if join else (stage.reads,)
            reads = [of_message(kind) for kind in kinds]
        notes = ["join"] if join else ["batch"] if stage.signature.batch else []
        if stage.signature.state is not None:
            notes.append(f"remembers {stage.signature.state.__mqinfer__.name}")
        here = node(("stage", stage.name), "stage", stage.name, ", ".join(notes))
        edges.update({Edge(one, here): None for one in reads})
        for model in stage.models:
            name, notes = model.name, []
            for other in app.models.values():
                if other.name == name and other.alias:
                    notes.append(f"alias {other.alias}")
                elif other.name == name and other.version:
                    notes.append(f"version {other.version}")
            at = node(("model", name), "model", name, ", ".join(notes))
            edges[Edge(at, here, call=True)] = None
        for kind in stage.writes:
            edges[Edge(here, of_message(kind))] = None
        for kind in stage.later:
            edges[Edge(here, of_message(kind), later=True)] = None
    return Graph(app.name, tuple(nodes), tuple(edges))
