"""The chart of the study: a panel a disease with its healing curves, and one with the effects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from examples.plants.analysis import Study
from examples.plants.versions import Versions
from stages.plants.effects import Effect, Mean

mpl.use("Agg")
from matplotlib import dates as _dates
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

mdates: Any = _dates  # has no annotations

COLOURS = {"control": "#8a6d3b", "active": "#1b7f5c"}
NAMES = {"control": "control: no medicine", "active": "active: medicine"}
INK, FAINT = "#222222", "#dddddd"


def draw(found: Study, path: Path) -> Path:
    """Draw the chart.

    Args:
        found: the answers.
        path: of the PNG.
    """
    diseases = list(dict.fromkeys(mean.disease for mean in found.means))
    style: Any = {"font.size": 10, "axes.edgecolor": "#999999", "axes.titleweight": "bold"}
    with mpl.rc_context(style):
        figure, axes = plt.subplots(2, 3, figsize=(12, 7.2), layout="constrained")
        panels = list(axes.flat)
        for index, (axis, disease) in enumerate(zip(panels, diseases, strict=False)):
            _curves(axis, disease, [mean for mean in found.means if mean.disease == disease])
            if index % 3 == 0:
                axis.set_ylabel("mean grade (0 healthy to 3)")
        if diseases:
            panels[0].legend(frameon=False, fontsize=9, loc="lower left")
        for axis in panels[len(diseases) : -1]:
            axis.set_visible(False)
        _effects(panels[-1], found.effects)
        top = max((mean.mean + _known(mean.margin) for mean in found.means), default=3.0)
        for axis in panels[: len(diseases)]:
            axis.set_ylim(0, min(3.0, top * 1.12))
        figure.suptitle(_headline(found.effects), fontsize=14, fontweight="bold", x=0.01, ha="left")
        figure.supxlabel(
            "Bands and bars: 95 % intervals over positions (Student's t; Welch's t for the effect)",
            fontsize=9,
            color="#666666",
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
        plt.close(figure)
    return path


def _curves(axis: Any, disease: str, means: Sequence[Mean]) -> None:
    """The two areas' curves of one disease."""
    for area, colour in COLOURS.items():
        line = [mean for mean in means if mean.area == area]
        if not line:
            continue
        dates = [mean.date for mean in line]
        low = [mean.mean - _known(mean.margin) for mean in line]
        high = [mean.mean + _known(mean.margin) for mean in line]
        axis.fill_between(dates, low, high, color=colour, alpha=0.18, linewidth=0)
        axis.plot(dates, [mean.mean for mean in line], color=colour, linewidth=2, label=NAMES[area])
    axis.set_title(disease, loc="left", color=INK)
    days = sorted({mean.date for mean in means})
    axis.set_xticks(days[:: max(1, -(-len(days) // 5))])
    axis.xaxis.set_major_formatter(mdates.DateFormatter("%d %b"))
    axis.grid(axis="y", color=FAINT, linewidth=0.8)
    axis.spines[["top", "right"]].set_visible(False)


def _effects(axis: Any, effects: Sequence[Effect]) -> None:
    """What the medicine did to each disease, with its interval."""
    axis.axvline(0, color=INK, linewidth=1)
    for place, one in enumerate(effects):
        colour = {"helps": COLOURS["active"], "harms": "#b3261e"}.get(one.verdict, "#777777")
        whole = one.disease == "all"
        axis.plot([one.low, one.high], [place, place], color=colour, linewidth=3 if whole else 2)
        axis.plot(one.effect, place, "D" if whole else "o", color=colour, markersize=8)
        axis.annotate(
            f"{one.effect:+.2f}",
            (one.effect, place),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=colour,
        )
    names = ["all five" if one.disease == "all" else one.disease for one in effects]
    axis.set_yticks(range(len(effects)), names)
    axis.set_ylim(len(effects) - 0.4, -0.7)
    axis.set_title("effect of the medicine, in grades", loc="left", color=INK)
    axis.set_xlabel("below zero: it heals faster than without", fontsize=9)
    axis.margins(x=0.12)
    axis.grid(axis="x", color=FAINT, linewidth=0.8)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)


def _headline(effects: Sequence[Effect]) -> str:
    whole = next((one for one in effects if one.disease == "all"), None)
    if whole is None:
        return "Nothing was graded yet"
    words = {"helps": "The medicine works", "harms": "The medicine harms"}
    word = words.get(whole.verdict, "No effect of the medicine is shown")
    return (
        f"{word}: {whole.effect:+.2f} grades against control "
        f"(95 % interval {whole.low:+.2f} to {whole.high:+.2f})"
    )


def _known(margin: float) -> float:
    return 0.0 if margin != margin else margin  # NaN: one position has no interval


def draw_versions(found: Versions, disease: str, path: Path) -> Path:
    """Draw what two versions say beside the truth: three matrices of grades.

    Args:
        found: the answers.
        disease: that is graded.
        path: of the PNG.
    """
    same = 1 - found.changed / max(1, found.leaves)
    panels = (
        (0, 1, f"version 1: {100 * found.within(1, 0):.1f} % right"),
        (0, 2, f"version 2: {100 * found.within(2, 0):.1f} % right"),
        (1, 2, f"both: {100 * same:.1f} % the same"),
    )
    names = ("true grade", "grade of version 1", "grade of version 2")
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.6), layout="constrained")
    for axis, (rows, columns, title) in zip(axes, panels, strict=True):
        _matrix(axis, found.matrix(rows, columns))
        axis.set_ylabel(names[rows])
        axis.set_xlabel(names[columns])
        axis.set_title(title, loc="left", color=INK, fontsize=11)
    figure.suptitle(
        f"{disease.capitalize()} on {found.leaves:,} leaves: version 2 mends {found.mended:,} "
        f"grades and spoils {found.spoilt:,}",
        fontsize=14,
        fontweight="bold",
        x=0.01,
        ha="left",
    )
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)
    return path


def _matrix(axis: Any, counts: list[list[int]]) -> None:
    """Counts as numbers on colours; the diagonal, where both agree, in green."""
    for row, line in enumerate(counts):
        total = max(1, sum(line))
        for column, count in enumerate(line):
            colour = COLOURS["active"] if row == column else "#b3261e"
            square = (column - 0.5, row - 0.5)
            # Of its row; the root makes rare mistakes visible.
            alpha = (count / total) ** 0.5 * 0.85
            axis.add_patch(Rectangle(square, 1, 1, color=colour, alpha=alpha, linewidth=0))
            ink = "white" if alpha > 0.6 else INK if count else FAINT
            axis.text(column, row, f"{count:,}", ha="center", va="center", color=ink)
    axis.set_xlim(-0.5, 3.5)
    axis.set_ylim(3.5, -0.5)
    axis.set_xticks(range(4))
    axis.set_yticks(range(4))
    axis.set_aspect("equal")
    axis.tick_params(length=0)
    axis.spines[["top", "right", "left", "bottom"]].set_visible(False)
