"""Chart: false alarms and rows to detect, rule by rule, a panel for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

INK, FAINT = "#1f2937", "#6b7280"
COLOURS = ("#1d4ed8", "#b45309", "#0f766e")


def draw(path: Path, found: dict[str, Any]) -> None:
    """Draw what the study measured.

    Args:
        path: of the PNG.
        found: as `python -m benchmarks.monitor --json` keeps it.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    worlds = found["worlds"]
    rules = list(next(iter(worlds.values()))["rules"])
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        drawing = Figure(figsize=(11, 4.2), layout="constrained")
        FigureCanvasAgg(drawing)
        left, right = drawing.subplots(1, 2)
        height = 0.8 / len(worlds)
        for place, (name, told) in enumerate(worlds.items()):
            at = [line + place * height for line in range(len(rules))]
            parts = [
                100 * told["rules"][rule]["months_with_alarm"] / found["months"] for rule in rules
            ]
            left.barh(at, parts, height * 0.9, label=name, color=COLOURS[place])
            for y, part in zip(at, parts, strict=True):
                left.text(part + 1, y, f"{part:.1f} %", va="center", fontsize=7, color=INK)
        left.axvline(5, color=INK, linewidth=0.8, linestyle="--")
        left.set_xlim(0, 115)
        left.set_yticks([line + height for line in range(len(rules))], rules)
        left.set_title(f"Stable months with a false alarm, of {found['months']:,} (dashed: 5 %)")
        left.invert_yaxis()
        left.legend(frameon=False, loc="upper right", fontsize=8)
        told = next(iter(worlds.values()))["rules"]
        for place, rule in enumerate(rules):
            points = {
                float(share): median
                for share, (median, _) in told[rule]["rows"].items()
                if median is not None
            }
            marker = "osD^v"[place]
            right.plot(list(points), list(points.values()), marker=marker, label=rule)
        right.set_yscale("log")
        right.set_xticks([0.15, 0.2, 0.3])
        right.set_xlabel("share that 0.10 becomes")
        right.set_title("Rows until the alarm (median, independent rows; none: never)")
        right.legend(frameon=False, fontsize=8)
        for axes in (left, right):
            axes.title.set_fontsize(9.5)
            axes.title.set_color(INK)
            axes.tick_params(colors=FAINT)
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing.savefig(path, dpi=120, facecolor="white")
