"""The short version of `make faults`: lost 0, duplicated 0, unexpected 0."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from .account import Account
from .harness import Run
from .pipeline import Expected, expected
from .schedule import CLUSTER, SINGLE, draw

pytest.importorskip("chdb")
pytestmark = pytest.mark.triton  # its model is one of Triton's Python backend

SEED = int(os.environ.get("FAULTS_SEED", "0")) or random.randrange(1_000_000)


async def test_one_server(tmp_path: Path) -> None:
    run = Run(tmp_path, inputs=600, faults=12, seed=SEED)
    account = await run()
    print(account.table())
    assert account.clean, account.table()
    assert sum(account.faults.values()) >= 7, account.table()
    assert sum(account.replaced.values()) >= 2, account.table()
    assert set(account.befell) == {"retry", "retry after", "snooze", "fail", "slow"}


async def test_a_cluster_whose_leaders_die(tmp_path: Path) -> None:
    run = Run(tmp_path, inputs=200, faults=3, seed=SEED, cluster=3, kinds=["SIGKILL of a leader"])
    account = await run()
    print(account.table())
    assert account.clean, account.table()
    assert account.faults["SIGKILL of a leader"] >= 2, account.table()


# --- the harness itself -------------------------------------------------------------------------


def test_a_seed_gives_one_schedule() -> None:
    for weights in (SINGLE, CLUSTER):
        one, two = (draw(random.Random(7), 100, weights) for _ in range(2))
        assert one == two
        assert len(one) == 100
        assert set(one) == set(weights)
        assert len(draw(random.Random(7), 5, weights)) == 5


def _settled(rows: list[tuple[Any, ...]], dead: list[tuple[str, str, str]]) -> Account:
    account = Account(title="", seed=0, inputs=0)
    account.settle(
        Expected({(1, 0, "cube", 5), (2, 0, "cube", 6)}, {("split", "rejected", "in-96")}),
        rows,
        [{"Mq-Dead-Stage": s, "Mq-Dead-Kind": k, "Mq-Id": i} for s, k, i in dead],
    )
    return account


def test_the_account_finds_what_is_wrong() -> None:
    letter = ("split", "rejected", "in-96")
    good = _settled([(1, 0, "cube", 5), (2, 0, "cube", 6)], [letter])
    assert good.clean
    bad = _settled([(1, 0, "cube", 5), (1, 0, "cube", 5), (9, 0, "cube", 5)], [])
    assert (bad.lost, bad.duplicated, bad.unexpected) == (2, 1, 1)
    assert not bad.clean
    assert "lost: (2, 0, 'cube', 6)" in bad.table()
    wrong = _settled([(1, 0, "cube", 7), (2, 0, "cube", 6)], [letter, letter])
    assert (wrong.lost, wrong.duplicated, wrong.unexpected) == (1, 1, 1)
    innocent = _settled([(1, 0, "cube", 5)], [letter, ("cube", "killed", "in-2")])
    assert (innocent.lost, innocent.unexpected, innocent.innocent) == (1, 1, 1)
    assert "unexpected: ('cube', 'killed', 'in-2')" in innocent.table()


def test_every_input_has_an_answer() -> None:
    wanted = expected(range(1000))
    assert len(wanted.dead) == 10 + sum(1 for n in range(0, 1000, 61) if n % 97 != 96)
    answers = [row for row in wanted.rows if row[0] == "answer"]
    assert {kind for _, _, _, kind, _ in answers} == {"square", "cube", "score"}
    assert {row[0] for row in wanted.rows} == {"answer", "oddity", "word"}
