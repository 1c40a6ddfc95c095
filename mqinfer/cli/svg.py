"""A graph as an SVG file that stands alone, with a legend."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from mqinfer.operate.layout import MARGIN, layout

if TYPE_CHECKING:
    from mqinfer.operate.graph import Graph

_LOOKS = {  # fill, stroke, corner radius
    "subject": ("#f3f4f6", "#6b7280", 15),
    "stage": ("#dbeafe", "#1d4ed8", 3),
    "model": ("#f3e8ff", "#7e22ce", 3),
    "table": ("#dcfce7", "#15803d", 3),
}


def svg(graph: Graph) -> str:
    """The drawing, complete with a legend."""
    laid = layout(graph)
    kinds = list(dict.fromkeys(node.kind for node in graph.nodes))
    width = max(laid.width, 2 * MARGIN + 84 * len(kinds))
    height = laid.height + 26
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" font-family="system-ui,sans-serif" '
        f'font-size="13"><title>{escape(graph.name)}</title>',
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto-start-reverse"><path d="M0 0 8 4 0 8z" fill="#6b7280"/>'
        "</marker></defs>",
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for line in laid.lines:
        dash = ' stroke-dasharray="4 3"' if line.call else ""
        arrow = "marker-start" if line.back else "marker-end"
        parts.append(
            f'<path d="{line.path}" fill="none" stroke="#6b7280"{dash} {arrow}="url(#a)"/>'
        )
    for node in graph.nodes:
        box = laid.boxes[node.id]
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
        x, y = MARGIN + 84 * i, height - 22
        parts.append(
            f'<rect x="{x}" y="{y:.0f}" width="12" height="12" rx="{min(radius, 6)}" fill="{fill}" '
            f'stroke="{stroke}"/><text x="{x + 18}" y="{y + 10:.0f}" font-size="11" '
            f'fill="#4b5563">{kind}</text>'
        )
    return "\n".join([*parts, "</svg>"])
