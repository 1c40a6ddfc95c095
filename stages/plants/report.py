"""A report a photograph, made when all that came of it is graded or given up: a join."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from mqinfer import Context, Row
from stages.plants.basics import DISEASES, Grade, PositionId, app
from stages.plants.leaves import DiseaseGrade, DroneImage, Leaf

DEADLINE = "6h"  # longer than an outage; the next photograph comes in a day


class PhotoReport(
    Row,
    table="photo_report",
    order_by=("position_id", "date"),
    key="position_id",
    ordered=True,
):
    """What one photograph says.

    Attributes:
        position_id: where it was taken.
        date: when.
        leaves: that were found.
        by_grade: how many grades of 0, 1, 2 and 3 were given.
        grade: their mean; None where nothing was graded.
        worst_grade: the worst of them.
        worst: where that was given, as "rust on leaf 3"; the first, if there are several.
        ungraded: what has no grade, as "rust on leaf 3".
        died: how many messages below the photograph became dead letters.
        reasons: of each of them, the stage that gave up and why.
        incomplete: "", or "late": the deadline came first.
    """

    position_id: PositionId
    date: datetime.date
    leaves: int
    by_grade: list[int]
    grade: float | None
    worst_grade: Grade | None
    worst: str
    ungraded: list[str]
    died: int
    reasons: list[str]
    incomplete: str


@app.join(DroneImage, of=(Leaf, DiseaseGrade), deadline=DEADLINE)
async def report(photo: DroneImage, found: list[Leaf | DiseaseGrade], ctx: Context) -> PhotoReport:
    """Count what is there, and name what is not."""
    leaves = [one for one in found if isinstance(one, Leaf)]
    grades = [one for one in found if isinstance(one, DiseaseGrade)]
    values = [one.predicted_grade for one in grades]
    worst = max(grades, key=lambda one: one.predicted_grade, default=None)
    return PhotoReport(
        position_id=photo.position_id,
        date=photo.date,
        leaves=len(leaves),
        by_grade=[values.count(grade) for grade in range(4)],
        grade=sum(values) / len(values) if values else None,
        worst_grade=worst.predicted_grade if worst else None,
        worst=named(worst.leaf_crop_idx, worst.disease_type) if worst else "",
        ungraded=without(leaves, grades),
        died=len(ctx.died),
        reasons=[f"{died.stage}: {died.reason}" for died in ctx.died],
        incomplete=ctx.incomplete,
    )


def without(leaves: Sequence[Leaf], grades: Sequence[DiseaseGrade]) -> list[str]:
    """What was to be graded and is not."""
    graded = {(one.leaf_crop_idx, one.disease_type) for one in grades}
    wanted = [(leaf.leaf_crop_idx, disease) for leaf in leaves for disease in DISEASES]
    return [named(*one) for one in wanted if one not in graded]


def named(leaf: int, disease: str) -> str:
    """A grade's place on the photograph, for people."""
    return f"{disease} on leaf {leaf}"
