"""The small backend without its page: what is worked out, and how it is told. Models are fakes."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

import mqinfer
from examples.requests import aside, drawing, occlusion
from examples.requests.app import (
    LIMIT,
    SIDE,
    Heat,
    Label,
    Labels,
    Number,
    Picture,
    Product,
    app,
    middle,
)
from examples.requests.factorial import SHOWN, factorial, told
from mqinfer import Blob
from mqinfer.errors import RequestRejected
from mqinfer.testing import FakeModels, Harness, nats_only, until
from tests.support.requests_example import lite0

# --- where the model looked -----------------------------------------------------------------------


def test_each_place_is_covered_once() -> None:
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    for size in occlusion.SIZES:
        seen = np.zeros((SIDE, SIDE), int)
        for row in range(occlusion.PLACES):
            copies = list(occlusion.covered(white, size, row))
            assert len(copies) == occlusion.PLACES
            for copy in copies:
                patch = (copy != 255).all(axis=2)
                assert patch.sum() == size * size
                seen += patch
        assert seen.min() >= 1  # up to the edges
    assert len(list(occlusion.strips())) == STRIPS
    assert (white == 255).all()


STRIPS = 33
INNER = st.integers(SIDE // 4, 3 * SIDE // 4)


@settings(max_examples=20)
@given(INNER, INNER, st.randoms(use_true_random=False))
def test_it_looked_where_covering_hurts(y: int, x: int, chance: random.Random) -> None:
    """A model that knows a thing by one pixel."""
    falls = []
    for size, row in occlusion.strips():
        begin = occlusion.starts(SIDE, size)
        over = begin[row] <= y < begin[row] + size
        falls.append((size, row, [float(over and x0 <= x < x0 + size) for x0 in begin]))
    chance.shuffle(falls)
    heat = np.array(occlusion.heat(falls, SIDE))
    assert heat.shape == (occlusion.GRID, occlusion.GRID)
    assert (heat.min(), heat.max()) == (0, 1)
    cell = SIDE // occlusion.GRID
    hottest = np.unravel_index(heat.argmax(), heat.shape)
    assert abs(hottest[0] - y // cell) <= 3
    assert abs(hottest[1] - x // cell) <= 3
    assert heat[y // cell, x // cell] > 0.7


def test_what_does_not_hurt_is_cold() -> None:
    assert np.max(occlusion.heat([], SIDE)) == 0
    better = [(size, row, [-0.5] * occlusion.PLACES) for size, row in occlusion.strips()]
    assert np.max(occlusion.heat(better, SIDE)) == 0


@pytest.mark.parametrize("shape", [(300, 500), (500, 300), (224, 224), (9, 5)])
def test_the_middle_of_a_picture(shape: tuple[int, int]) -> None:
    pixels = np.zeros((*shape, 3), np.uint8)
    side = min(shape)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    pixels[top : top + side, left : left + side] = 200
    square = middle(pixels)
    assert square.shape == (SIDE, SIDE, 3)
    assert (square == 200).all()


# --- the long calculation -------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(0, 400))
def test_a_factorial_is_exact(n: int) -> None:
    assert int(factorial(n)) == math.factorial(n)
    found, digits = told(n), str(math.factorial(n))
    assert found["digits"] == len(digits)
    assert digits.startswith(found["first"])
    assert digits.endswith(found["last"] + "0" * found["zeros"])
    assert len(found["first"]) <= SHOWN


async def test_a_program_ends_with_whoever_waits_for_it(tmp_path: Path) -> None:
    program, started = tmp_path / "hang.py", tmp_path / "started"
    program.write_text(
        "import os, pathlib, sys, time\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "path.with_suffix('.new').write_text(str(os.getpid()))\n"
        "path.with_suffix('.new').rename(path)\n"
        "time.sleep(3600)\n"
    )
    running = asyncio.create_task(aside.run(program, str(started)))
    await until(started.exists, "the program")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not psutil.pid_exists(int(started.read_text()))


async def test_a_program_that_fails_says_why(tmp_path: Path) -> None:
    program = tmp_path / "fail.py"
    program.write_text("raise SystemExit('no such number')\n")
    with pytest.raises(RuntimeError, match=r"fail\.py ended with 1: no such number"):
        await aside.run(program)


# --- the app --------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[mqinfer.Client]:
    """A client, with a worker beside it."""
    with FakeModels({"lite0": lite0}):
        async with (
            nats_only(tmp_path) as nats,
            Harness(app, nats) as harness,
            harness.worker(),
            mqinfer.connect(app, nats) as found,
        ):
            yield found


async def test_a_picture_is_looked_at(client: mqinfer.Client) -> None:
    request = await client.request(Picture(Blob(drawing.drawn("balloon", 300))), endpoint="look")
    seen = [event async for event in request]
    labels, heat = await request.result()
    assert isinstance(labels, Labels)
    assert labels.labels[:2] == [Label("balloon", 0.5), Label("lemon", 0.25)]
    assert isinstance(heat, Heat)
    assert (heat.name, heat.looks, heat.missing) == ("balloon", STRIPS * occlusion.PLACES, 0)
    rows = np.array(heat.rows)
    assert rows[14, 14] > 0.8  # the fake knows things by their middle
    assert rows[0, 0] < 0.2
    kinds = [event.kind for event in seen]
    assert kinds.count("answer") == 2
    assert kinds.index("answer") < len(kinds) - 2  # the first of them comes before the end
    assert "progress" in kinds


async def test_what_is_no_picture_is_told_so(client: mqinfer.Client) -> None:
    request = await client.request(Picture(Blob(b"no picture"), "x.png"), endpoint="look", wait=60)
    assert request.status == "failed"
    with pytest.raises(RequestRejected, match="inline image"):
        await request.result()


async def test_the_long_calculation(client: mqinfer.Client) -> None:
    request = await client.request(Number(3000), endpoint="factorial", wait=60)
    (product,) = await request.result()
    assert isinstance(product, Product)
    assert (product.n, product.digits, product.first[:4]) == (3000, 9131, "4149")

    large = await client.request(Number(LIMIT + 1), endpoint="factorial", wait=60)
    with pytest.raises(RequestRejected, match=r"200,001 is too much: .* up to 200,000"):
        await large.result()
