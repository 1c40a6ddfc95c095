"""The study of MLwatch: photographs by path to rows, and the worlds that they come from.

A real Triton serves the model, once for all tests of this file.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest
import pytest_asyncio

import mqinfer
from examples.madeonce import made_once
from examples.mlwatch import models, photographs
from examples.mlwatch.app import Picture, app
from examples.mlwatch.changing import WITHIN
from examples.mlwatch.local import Database
from examples.mlwatch.photographs import KNOWN, NEW, PROBE, WORLDS, World, path, things
from examples.mlwatch.processors import Processors
from examples.mlwatch.publisher import Pace, publish
from examples.mlwatch.world import Draw
from mqinfer import Blob, Settings
from mqinfer.image import decode
from mqinfer.monitor.detector import Budget, Detector, watch
from mqinfer.monitor.reference import STEP, reference_of
from mqinfer.stack import Stack, StackSettings
from mqinfer.testing import FakeModels, Harness, until

EACH = 4  # cut-outs of each original
PACE = 40  # photographs a second, as the demo has them


class Said(NamedTuple):
    """A row."""

    label: str
    confidence: float
    brightness: float
    bits: float


@pytest.fixture(scope="module")
def store() -> Path:
    return photographs.folder(WORLDS, EACH)


@pytest.fixture(scope="module")
def paths(store: Path) -> list[str]:
    return [str(file.relative_to(store)) for file in sorted(store.glob("*/*.jpg"))]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    chosen = StackSettings.free_ports(
        tmp_path_factory.mktemp("mlwatch"),
        models=models.repository(),
        inference=Settings.load().inference,
    )
    async with Stack(chosen) as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def answers(stack: Stack, store: Path, paths: list[str]) -> dict[str, Said]:
    """What the pipeline says of every photograph of every world, by its path."""
    settings = Settings.load({**stack.environment(), "MQINFER_BLOBS": str(store)}, grace=5.0)
    database = Database(settings.clickhouse_url)
    try:
        async with Harness(app, settings) as harness:
            await harness.publish(*(Picture(Blob.at(one)) for one in paths))
            await harness.drain()
            # From counts to date, and by a recount.
            counts = await database.ask(
                "SELECT key, sum(n), sum(total) FROM prediction__counts WHERE `column` = 'label' "
                "GROUP BY key ORDER BY key"
            )
        rows = await database.ask(
            "SELECT photograph, label, confidence, brightness, bits FROM prediction"
        )
    finally:
        database.close()
    found = {str(row[0]): Said(*row[1:]) for row in rows}
    assert (len(rows), found.keys()) == (len(paths), set(paths))
    recount = Counter(said.label for said in found.values())
    assert {label: n for label, n, _ in counts} == recount
    for label, _, total in counts:
        assert total == pytest.approx(
            sum(said.confidence for said in found.values() if said.label == label)
        )
    return found


def of(answers: dict[str, Said], world: World) -> list[Said]:
    return [said for name, said in answers.items() if name.startswith(f"{world}/")]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_model_knows_what_is_on_photographs_by_day(answers: dict[str, Said]) -> None:
    best = {
        name: Counter(answers[path("day", name, number)].label for number in range(EACH))
        for name in things("day")
    }
    likeliest = {name: count.most_common(1)[0] for name, count in best.items()}
    assert len({label for label, _ in likeliest.values()}) == len(KNOWN) + 1
    assert sum(n for _, n in likeliest.values()) >= 0.85 * EACH * (len(KNOWN) + 1)
    assert likeliest["16_251"][0] == "Dalmatian"
    assert likeliest["04_949"][0] == "strawberry"


@pytest.mark.asyncio(loop_scope="module")
async def test_each_world_is_seen_in_what_is_watched(answers: dict[str, Said]) -> None:
    means = {
        world: np.array([said[1:] for said in of(answers, world)]).mean(axis=0) for world in WORLDS
    }
    confidence, brightness, bits = means["day"]
    assert confidence > 0.6
    assert means["night"][0] < 0.75 * confidence
    assert means["night"][1] < brightness / 3
    assert means["jpeg"][0] < 0.75 * confidence
    assert means["jpeg"][2] < bits / 2
    usual = {said.label for said in of(answers, "day")}
    assert not usual & {said.label for said in of(answers, "new-label")}


@pytest.mark.asyncio(loop_scope="module")
async def test_an_alarm_rings_within_the_stated_rows_and_not_before(
    answers: dict[str, Said],
) -> None:
    """Of the labels alone, as the model gave them, in steps as the demo has them."""
    rows = STEP * PACE
    usual = Draw(1, each=EACH)
    steady = [Counter(answers[one].label for one in usual.paths(rows)) for _ in range(70)]
    reference = reference_of(list(enumerate(steady[:20])))
    threshold = Budget().threshold(4)
    stable = [(number, reference.folded(counts)) for number, counts in enumerate(steady[20:])]
    assert watch(Detector.of(reference), stable, threshold) == []
    for drift in WORLDS[1:]:
        draw = Draw(2, drift, each=EACH)
        steps = (
            (number, reference.folded(Counter(answers[one].label for one in draw.paths(rows))))
            for number in range(WITHIN // rows)
        )
        assert watch(Detector.of(reference), steps, threshold), drift


# --- without servers ------------------------------------------------------------------------------


def test_a_draw_is_the_same_each_time_and_changes_as_much_as_is_said() -> None:
    assert Draw(5, "night").paths(100) == Draw(5, "night").paths(100)
    assert Draw(5).paths(100) != Draw(6).paths(100)
    known = {path("day", name, number) for name in KNOWN for number in range(24)}
    assert set(Draw(5).paths(2000)) <= known
    for drift in WORLDS[1:]:
        paths = Draw(7, drift, 0.3).paths(10_000)
        changed = [one for one in paths if one.startswith(f"{drift}/")]
        assert len(changed) == pytest.approx(3000, abs=5 * 46)  # standard deviations
    assert all(one.startswith("jpeg/") for one in Draw(7, "jpeg", 1.0).paths(100))


def test_things_come_as_often_as_by_zipfs_law() -> None:
    counts = Counter(one.partition("/")[2][:-8] for one in Draw(5).paths(50_000))
    assert PROBE not in counts
    shares = [counts[name] / 50_000 for name in KNOWN]
    wanted = [1 / (3 + rank) for rank in range(len(KNOWN))]
    assert shares == pytest.approx([one / sum(wanted) for one in wanted], abs=0.01)


def test_photographs_are_the_same_each_time(store: Path) -> None:
    source = photographs.originals()
    for world in WORLDS:
        first, again = (
            list(itertools.islice(photographs.cut_outs(world, EACH, source), 3)) for _ in range(2)
        )
        assert first == again
        for name, data in first:
            assert (store / name).read_bytes() == data
            side = photographs.SIDE // (2 if world == "jpeg" else 1)
            assert decode(data).shape == (side, side, 3)
    assert sorted(one.name for one in store.iterdir() if one.is_dir()) == sorted(WORLDS)
    assert len(list(store.glob("new-label/*"))) == EACH * len(NEW)


def test_what_is_made_once_is_whole_or_not_there(tmp_path: Path) -> None:
    def breaks(work: Path) -> Path:
        (work / "half").write_text("half")
        raise OSError("the disk is full")

    target = tmp_path / "kept" / "it"
    with pytest.raises(OSError, match="full"):
        made_once(target, breaks)
    assert not target.exists()

    def makes(work: Path) -> Path:
        (work / "made").write_text("whole")
        return work / "made"

    assert made_once(target, makes).read_text() == "whole"
    assert made_once(target, breaks) == target  # it is not made again
    assert [one.name for one in target.parent.iterdir() if one.name.startswith("making")] == []


# --- the producer ---------------------------------------------------------------------------------


async def test_a_rate_is_kept_and_a_count_is_exact(nats: Settings) -> None:
    sent: list[int] = []
    async with Harness(app, nats) as harness, mqinfer.connect(app, nats) as client:
        began = time.monotonic()
        await publish(client, Draw(1), Pace(rate=100, count=31), sent.append)
        assert time.monotonic() - began >= 30 / 100
        messages = await harness.messages(Picture)
    assert sum(sent) == 31
    assert [one.photograph.path for one in messages] == Draw(1).paths(31)


async def test_it_holds_while_too_many_are_open(nats: Settings, store: Path) -> None:
    free, sent = asyncio.Event(), list[int]()

    async def answer(image: object) -> dict[str, object]:
        await free.wait()
        return {"probabilities": [1.0], "best": [0], "names": [b"goose"]}

    settings = dataclasses.replace(nats, blobs=str(store))
    with FakeModels({"lite0": answer}):
        async with (
            Harness(app, settings) as harness,
            mqinfer.connect(app, settings) as client,
            harness.worker("predict"),
        ):
            pace = Pace(rate=100, count=100, most_open=10)
            publishing = asyncio.create_task(publish(client, Draw(1, each=EACH), pace, sent.append))
            await until(lambda: sum(sent) > 0, "the first photograph")
            asked = time.monotonic()
            await until(lambda: time.monotonic() - asked > 1.5, "more than all of them take")
            assert sum(sent) <= 10
            free.set()
            await publishing
            assert sum(sent) == 100


def test_processor_seconds_are_of_a_process_and_its_children() -> None:
    processors = Processors({"this": psutil.Process().pid})
    began = time.process_time()
    while time.process_time() - began < 0.1:
        pass
    assert processors.used()["this"] >= 0.05
