"""What people know about the field; it makes the study's questions plain SQL."""

from __future__ import annotations

import datetime

from msgspec import Struct

from mqinfer import Message, Row
from stages.plants.basics import Area, Box, Grade, PositionId, app


class FieldPlan(Message, subject="field_plan"):
    """Which positions get the medicine; published once."""

    positions: dict[PositionId, Area]


class Position(Row, table="position", order_by=("position_id",)):
    position_id: PositionId
    area: Area


class InspectedLeaf(Struct, frozen=True):
    box: Box
    grades: dict[str, Grade]


class Inspection(Message, subject="inspection"):
    """What somebody who stood there says about the leaves on a photograph."""

    position_id: PositionId
    date: datetime.date
    leaves: list[InspectedLeaf]


class LeafTruth(Row, table="leaf_truth", order_by=("position_id", "date")):
    position_id: PositionId
    date: datetime.date
    leaf_idx: int
    box: Box
    grades: dict[str, Grade]


@app.stage
async def chart(plan: FieldPlan) -> list[Position]:
    """A row a position."""
    return [Position(position, area) for position, area in plan.positions.items()]


@app.stage
async def record(seen: Inspection) -> list[LeafTruth]:
    """A row an inspected leaf."""
    return [
        LeafTruth(seen.position_id, seen.date, index, leaf.box, leaf.grades)
        for index, leaf in enumerate(seen.leaves)
    ]
