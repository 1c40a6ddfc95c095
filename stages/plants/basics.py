"""The app, and the types of which messages and rows are made."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from mqinfer import App, Column

DISEASES = ("rust", "blight", "mildew", "spot", "mosaic")

app = App("plants")

# It becomes a folder of the blob store and a token of a subject: nothing else may be in it.
PositionId = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")]
Grade = Annotated[int, Meta(ge=0, le=3), Column("UInt8")]  # 0 is healthy
Area = Literal["control", "active"]


class Box(Struct, frozen=True):
    """A rectangle in pixels of the photograph; x1 and y1 are exclusive."""

    x0: float
    y0: float
    x1: float
    y1: float
