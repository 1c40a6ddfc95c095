"""The short version of `make faults-requests`: wrong 0, twice 0, forgotten 0."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .account import FORGOTTEN, Account, Kept
from .bulk import Bulk
from .client import Told
from .hooks import Heard
from .run import Run
from .wishes import DARK, ENDPOINTS, Wish, truth, wish, wrong

SEED = int(os.environ.get("FAULTS_SEED", "0")) or random.randrange(1_000_000)
KINDS = (
    "SIGKILL of a gateway between two steps",
    "SIGKILL of a worker between two steps",
    "SIGKILL of a tracker between two steps",
    "SIGKILL of a driver",
    "SIGKILL of nats-server",
    "connections cut",
)


async def test_requests_and_jobs_under_faults(tmp_path: Path) -> None:
    run = Run(tmp_path, requests=300, jobs=2, rows=30, faults=6, seed=SEED, kinds=KINDS)
    account = await run()
    print(account.table())
    assert account.clean, account.table()
    assert sum(account.faults.values()) >= 4, account.table()
    assert account.ends["succeeded"] > 100, account.table()


# --- the harness itself -------------------------------------------------------------------------

ONE = Wish(8, "grade", {"n": 8, "fan": 4}, "events")
LEAF = truth("grade", ONE.fields).answers


def settled(
    wished: Wish = ONE,
    status: str = "succeeded",
    answers: Sequence[Any] = LEAF,
    ends: int = 1,
    count: int = 1,
    job: str = "",
    **told: Any,
) -> Account:
    """The account of one client, whose request is kept as these say."""
    account = Account("", seed=0, requests=1)
    kept = [
        Kept(f"grade-{n}", wished.number, status, answers, (), ended=10.0, ends=ends)
        for n in range(count)
    ]
    known: dict[str, Any] = {"ids": ["grade-0"], "status": status, "answers": answers}
    one = Told(wished, **{**known, "began": 9.0, "ended": 11.0, **told})
    account.settle([one], kept, [Bulk(0, [], done=True, odd=[job] if job else [])])
    return account


def test_what_is_as_it_must_be_is_clean() -> None:
    account = settled()
    assert account.clean, account.table()
    assert (account.kept, account.answers, account.late) == (1, 5, [1.0])


def test_the_account_finds_what_is_wrong() -> None:
    assert settled(answers=LEAF[1:]).wrong
    assert settled(answers=LEAF[::-1]).wrong
    assert settled(answers=[*LEAF, LEAF[0]]).wrong
    assert settled(status="failed").wrong
    assert settled(status="canceled", answers=()).wrong
    assert settled(status="open").wrong
    assert settled(odd=["a gateway said what it must not"]).wrong
    told_otherwise = settled()
    told_otherwise.settle([], [Kept("x", 1, "succeeded", (), (), 0.0)], [])
    assert told_otherwise.wrong  # nobody asked for it
    assert settled(wished=replace(ONE, cancel=0.1), canceled=True).wrong
    assert settled(ends=2).twice
    assert settled(count=2).twice
    assert not settled(count=2, unsure=1).twice
    assert settled(wished=replace(ONE, key=True), count=2, unsure=1).twice
    assert settled(ids=[]).forgotten
    assert settled(status="", ids=["grade-0"]).forgotten
    assert settled(ids=["another"]).forgotten
    assert settled(ended=11.0 + FORGOTTEN).forgotten
    assert settled(job="a row is another").bad_rows
    for letter in (("cut", "killed", "a"), ("also", "failed", "a")):
        account = settled()
        account.dead([letter])
        assert account.letters == 1
    account = settled()
    account.dead([("grade", "rejected", "a"), ("grade", "rejected", "a")])
    assert account.letters == 1


def test_the_account_finds_what_is_deleted_and_there() -> None:
    deletes = replace(ONE, delete=0.5, key=True)
    gone = {"wished": deletes, "status": "deleted", "deleted": True}
    assert settled(count=0, **gone).clean
    assert settled(**gone).wrong
    assert not settled(**gone, lost=1).clean  # of another end than any
    anew = truth("grade", deletes.anew)
    follows = {"deleted": True, "anew": True, "status": anew.status, "answers": anew.answers}
    assert settled(wished=deletes, **follows).clean
    assert settled(wished=deletes, count=2, **follows).twice
    assert settled(wished=deletes, deleted=True, anew=True).wrong  # the answers of the first


def hooked(*heard: Heard, number: int = 8, odd: str = "") -> Account:
    """The account of one client whose address was told these."""
    account = Account("", seed=0, requests=1)
    kept = Kept("grade-0", 8, "succeeded", LEAF, (), ended=10.0)
    every = {number: heard} if heard else {}
    account.hooks([Told(replace(ONE, hook=True))], [kept], every, [(8, odd)] if odd else [])
    return account


def test_the_account_finds_what_no_address_was_told_or_another() -> None:
    right = Heard("grade-0", "succeeded", LEAF, ())
    account = hooked(right, right)
    assert account.clean, account.table()
    assert (account.hooked, account.repeated) == (1, 1)
    assert hooked().untold
    assert hooked(right, replace(right, answers=LEAF[1:])).wrong
    assert hooked(replace(right, status="failed")).wrong
    assert hooked(replace(right, id="grade-1")).wrong
    assert hooked(right, number=9).wrong
    assert hooked(right, odd="south was told what is not signed for it").wrong


def test_what_may_end_in_several_ways() -> None:
    cancels = replace(ONE, cancel=0.5)
    assert wrong(cancels, "canceled", (), ()) is None
    assert wrong(cancels, "succeeded", LEAF, ()) is None
    assert wrong(cancels, "canceled", LEAF, ())
    slow = Wish(1, "slow", {"n": 1, "hold": 0.0}, "poll")
    both = truth("slow", slow.fields).answers
    for answers in ((), both[:1], both[1:], both):
        assert wrong(slow, "expired", answers, ()) is None
    assert wrong(slow, "expired", both[::-1], ())
    assert wrong(slow, "succeeded", both, ()) is None
    held = replace(slow, fields={"n": 1, "hold": 9.0})
    assert wrong(held, "succeeded", both, ())
    assert wrong(held, "expired", both[1:], ())
    assert wrong(ONE, "expired", LEAF, ())
    dark = Wish(4, "grade", {"n": 4, "fan": 1}, "poll")
    assert wrong(dark, "failed", (), ({"kind": "rejected", "reason": DARK},)) is None
    assert wrong(dark, "failed", (), ({"kind": "internal", "reason": DARK},))


def test_a_seed_wishes_the_same_and_of_everything() -> None:
    wishes = [wish(number, 7) for number in range(3000)]
    assert wishes == [wish(number, 7) for number in range(3000)]
    assert {one.endpoint for one in wishes} == set(ENDPOINTS)
    assert {one.way for one in wishes} == {"events", "sync", "poll", "leave"}
    ends = {truth(one.endpoint, one.fields).status for one in wishes if not one.malformed}
    assert ends == {"succeeded", "partial", "failed"}
    assert {one.hook for one in wishes} == {True, False}
    assert any(one.delete is not None and "size" in one.fields for one in wishes)
    fans = [one.fields.get("fan", 0) for one in wishes if not one.malformed]
    assert (min(fans), max(fans)) == (0, 50)
    assert 4 < sum(fans) / len(fans) < 6
