"""The chart of what is watched: every position with its alarms, and what the mornings said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from clickhouse_connect.driver.client import Client

from examples.plants.chart import COLOURS, FAINT, INK, NAMES, mdates

mpl.use("Agg")
from matplotlib import pyplot as plt

ALARM = "#b3261e"


def draw_watch(client: Client, path: Path) -> Path:
    """Draw it.

    Args:
        client: of the database.
        path: of the PNG.
    """
    style: Any = {"font.size": 10, "axes.edgecolor": "#999999", "axes.titleweight": "bold"}
    with mpl.rc_context(style):
        figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
        _health(left, client)
        _mornings(right, client)
        for axis in (left, right):
            axis.xaxis.set_major_formatter(mdates.DateFormatter("%d %b"))
            axis.xaxis.set_major_locator(mdates.AutoDateLocator(maxticks=6))
            axis.grid(axis="y", color=FAINT, linewidth=0.8)
            axis.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=130)
        plt.close(figure)
    return path


def _health(axis: Any, client: Client) -> None:
    """A line a position from its reports; those with an alarm stand out, from where it is about."""
    lines = client.query(
        "SELECT position_id, any(area), groupArray(date), groupArray(grade) FROM ("
        "  SELECT position_id, area, date, grade FROM photo_report "
        "  INNER JOIN position USING (position_id) WHERE isNotNull(grade) ORDER BY date"
        ") GROUP BY position_id"
    ).result_rows
    for area, colour in COLOURS.items():
        axis.plot([], [], color=colour, label=NAMES[area])
    axis.legend(frameon=False, fontsize=9, loc="lower left")
    curves = {}
    for position, area, days, grades in lines:
        axis.plot(days, grades, color=COLOURS[area], linewidth=1, alpha=0.45)
        curves[position] = list(zip(days, grades, strict=True))
    alarms = client.query(
        "SELECT position_id, since - 1, date, grade FROM alarm ORDER BY date"
    ).result_rows
    for position, first, last, grade in alarms:
        part = [one for one in curves.get(position, []) if first <= one[0] <= last]
        axis.plot(*zip(*part, strict=True), color=ALARM, linewidth=2.5)
        axis.annotate(
            f"alarm: {position}",
            (last, grade),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=ALARM,
        )
    axis.set_ylim(bottom=0)
    axis.set_ylabel("mean grade of the photograph")
    axis.set_title("every position, by the reports", loc="left", color=INK)


def _mornings(axis: Any, client: Client) -> None:
    """The effect over all diseases as it was said on each morning."""
    said = client.query(
        "SELECT date, effect, margin FROM daily_effect "
        "WHERE disease = 'all' AND isNotNull(margin) ORDER BY date"
    ).result_rows
    if said:
        days, effects, margins = zip(*said, strict=True)
        axis.errorbar(
            days, effects, yerr=margins, color=COLOURS["active"], marker="o", capsize=3, linewidth=2
        )
    axis.axhline(0, color=INK, linewidth=1)
    axis.set_ylabel("effect of the medicine, in grades")
    axis.set_title("said every morning, with its 95 % interval", loc="left", color=INK)
