"""The parts of a join run under exactly the permissions that are printed for them."""

from __future__ import annotations

from pathlib import Path

from mqinfer import App, Message
from mqinfer.completion.waited import TRACKER
from mqinfer.operate.permissions import Permissions, permissions
from mqinfer.replay.ranges import Wanted
from mqinfer.settings import Settings
from mqinfer.testing import Harness, nats_only, until
from tests.support.replay import runs_of, work


class Photo(Message):
    n: int


class Leaf(Message):
    n: int


class Grade(Message):
    n: int


class Report(Message):
    grades: list[int]


app = App("least")


@app.stage
async def cut(photo: Photo) -> list[Leaf]:
    return [Leaf(n) for n in range(photo.n)]


@app.stage
async def grade(leaf: Leaf) -> Grade:
    return Grade(leaf.n)


@app.join(Photo, of=Grade, deadline="1h")
async def report(photo: Photo, grades: list[Grade]) -> Report:
    return Report([grade.n for grade in grades])


USERS = {"cut": "cut", "grade": "grade", "report": "report", "tracker": TRACKER}


def config(users: dict[str, Permissions]) -> str:
    lines = ['{user: "admin", password: "admin"}']
    for user, allowed in users.items():
        lines.append(f'{{user: "{user}", password: "{user}", {allowed.config()}}}')
    return "authorization { users = [\n" + "\n".join(lines) + "\n] }\n"


def of_user(settings: Settings, user: str) -> Settings:
    return Settings.load(
        {},
        nats_url=settings.nats_url,
        blobs=settings.blobs,
        grace=0.5,
        nats_user=user,
        nats_password=user,
        nats_inbox_prefix="_INBOX" if user == "admin" else f"_INBOX_{user}",
    )


async def test_every_part_runs_under_its_permissions(tmp_path: Path) -> None:
    users = {
        user: permissions(app, [name], inbox_prefix=f"_INBOX_{user}")
        for user, name in USERS.items()
    }
    async with (
        nats_only(tmp_path, nats_config=config(users)) as plain,
        Harness(app, of_user(plain, "admin")) as harness,
    ):
        await harness.drain()  # makes consumers and buckets
        await harness.publish(Photo(3))

        async def drain(user: str) -> None:
            async with Harness(app, of_user(plain, user)) as limited:
                await limited.drain(USERS[user])

        async def known() -> bool:
            return bool(await harness.stored("KV_least-roots"))

        await drain("cut")
        tracker = of_user(plain, "tracker")
        async with Harness(app, tracker) as limited, limited.worker(TRACKER):
            await until(known, "what the tracker keeps")
        await drain("grade")
        await drain("tracker")  # reads the records that the one before has acknowledged
        await drain("report")
        assert await harness.messages(Report) == [Report([0, 1, 2])]
        assert await harness.dead() == []


async def test_a_run_with_joins_takes_no_more_than_is_printed(tmp_path: Path) -> None:
    allowed = permissions(app, replays=["r1"], inbox_prefix="_INBOX_all")
    async with (
        nats_only(tmp_path, nats_config=config({"all": allowed})) as plain,
        Harness(app, of_user(plain, "admin")) as harness,
    ):
        await harness.publish(Photo(2))
        await harness.drain()
        store = runs_of(harness)
        run = await store.create(stage="cut", wanted=Wanted(), name="r1", downstream=True)
        async with Harness(app, of_user(plain, "all")) as limited:
            await work(limited, run.name)
        (found,) = await harness.stored(subject="least.run.r1.report")
        assert found.data == b'{"grades":[0,1]}'
