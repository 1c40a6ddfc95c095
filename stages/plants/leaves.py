"""Photographs to leaves to grades: a detector finds the leaves, five graders look at each."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

from examples.plants.crops import SCORE_THRESHOLD, crop_leaf, fit_photo, unfit_boxes
from mqinfer import Blob, Confidence, Label, Message, Row
from mqinfer.image import encode_png
from stages.plants.basics import DISEASES, Box, Grade, PositionId, app

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_SIDE = 32  # pixels; nobody could tell a leaf on anything smaller

detector = app.model("leaf_detector")


class DroneImage(Message, subject="drone_image"):
    position_id: PositionId
    date: datetime.date
    image: Blob


class Leaf(Message, subject="leaf", key="position_id"):
    position_id: PositionId
    date: datetime.date
    leaf_crop_idx: int
    image: Blob
    cropper_model_id: str
    cropper_model_version: str


class LeafFound(Row, table="leaf_found", order_by=("position_id", "date")):
    position_id: PositionId
    date: datetime.date
    leaf_crop_idx: int
    box: Box
    score: float
    image: Blob
    cropper_model_id: str
    cropper_model_version: str


class DiseaseGrade(Row, table="disease_grade", order_by=("position_id", "date")):
    position_id: PositionId
    date: datetime.date
    leaf_crop_idx: int
    disease_type: str
    predicted_grade: Annotated[Grade, Label()]
    cropper_model_id: str
    cropper_model_version: str
    disease_model_id: str
    disease_model_version: str
    # How sure the grader was, 0 to 1; None of those that graded before it was kept.
    confidence: Annotated[float | None, Confidence()] = None


@app.stage(max_in_flight=32)  # a decoded photograph takes megabytes
async def crop(photo: DroneImage) -> AsyncIterator[Leaf | LeafFound]:
    """Find the leaves of a photograph; store and publish each."""
    pixels = await photo.image.pixels(min_side=MIN_SIDE)
    frame, fit = await asyncio.to_thread(fit_photo, pixels)
    found = await detector(image=frame)
    sure = found["scores"] >= SCORE_THRESHOLD
    boxes = unfit_boxes(found["boxes"][sure], fit, pixels.shape)
    pictures = await asyncio.to_thread(cut, pixels, boxes)

    where = (photo.position_id, photo.date)
    who = (found.model, found.version)
    folder = f"{photo.position_id}/{photo.date}/{found.model}/{found.version}"
    scores = found["scores"][sure].tolist()
    for index, (box, score, picture) in enumerate(zip(boxes, scores, pictures, strict=True)):
        image = Blob(picture, path=f"{folder}/{index}.png")
        yield Leaf(*where, index, image, *who)
        yield LeafFound(*where, index, Box(*box.tolist()), score, image, *who)


def cut(pixels: NDArray[np.uint8], boxes: NDArray[np.float32]) -> list[bytes]:
    """Cut the leaves out of a photograph, each a PNG; in a thread, it is work for a processor."""
    return [encode_png(crop_leaf(pixels, box)) for box in boxes]


def grader(disease: str) -> None:
    """Declare the stage that grades one disease; each has its own place in the stream of leaves."""
    model = app.model(f"grade_{disease}", alias="live")

    @app.stage(name=f"grade_{disease}")
    async def grade(leaf: Leaf) -> DiseaseGrade:
        found = await model(image=await leaf.image.pixels())
        chances = found["probabilities"]
        return DiseaseGrade(
            position_id=leaf.position_id,
            date=leaf.date,
            leaf_crop_idx=leaf.leaf_crop_idx,
            disease_type=disease,
            predicted_grade=int(chances.argmax()),
            cropper_model_id=leaf.cropper_model_id,
            cropper_model_version=leaf.cropper_model_version,
            disease_model_id=found.model,
            disease_model_version=found.version,
            confidence=min(float(chances.max()), 1.0),
        )


for disease in DISEASES:
    grader(disease)
