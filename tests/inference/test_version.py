"""The version that is followed: its metadata, whether it answers, and where an alias moves it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from mqinfer.context import Context
from mqinfer.errors import NotConnected
from mqinfer.inference.link import Link
from mqinfer.inference.version import FollowedVersion, title_of
from mqinfer.ports import ModelInfo
from tests.support.inference import DOUBLE, Server, until


class Owner:
    """What is told: how often something changed, and the metadata that were new."""

    def __init__(self) -> None:
        self.changes = 0
        self.learned: list[ModelInfo] = []

    def changed(self) -> None:
        self.changes += 1

    def follow(self, link: Link, version: str | None, alias: str | None = None) -> FollowedVersion:
        return FollowedVersion(
            link,
            "double",
            version,
            alias,
            changed=self.changed,
            learned=self.learned.append,
        )


@pytest.fixture
async def link(server: Server) -> AsyncIterator[Link]:
    link = Link(server)
    yield link
    await link.close()


async def test_metadata_is_asked_for_at_once(link: Link) -> None:
    owner = Owner()
    followed = owner.follow(link, None)
    assert (followed.info, followed.expected, followed.moves) == (None, "", True)
    assert await followed.first_info(None) is DOUBLE
    assert owner.learned == [DOUBLE]
    assert followed.expected == "2", "the newest"
    assert await followed.describe()
    assert owner.learned == [DOUBLE], "it is nothing new"


async def test_a_pinned_version_does_not_move(link: Link) -> None:
    followed = Owner().follow(link, "1")
    assert (followed.expected, followed.moves) == ("1", False)


async def test_the_wait_for_a_model_that_is_not_there_is_not_the_handlers_time(
    server: Server, link: Link
) -> None:
    server.gone.add("double")
    owner = Owner()
    followed = owner.follow(link, None)
    context = Context(id="1", stage="s", sequence=1)
    waiting = asyncio.create_task(followed.first_info(context))
    await until(lambda: followed.availability.reason)
    assert context.waiting_since is not None
    assert not waiting.done()
    server.gone.clear()
    assert await waiting is DOUBLE
    assert context.waiting_since is None
    assert followed.availability.reason is None
    assert owner.changes >= 2
    assert followed.returns == 1


async def test_a_model_whose_process_died_is_not_back_before_it_answers(link: Link) -> None:
    owner = Owner()
    followed = owner.follow(link, None)
    await followed.first_info(None)
    followed.down("its process died", died=True)
    # The server calls it ready all the time.
    await until(lambda: followed.availability.reason is None)
    assert followed.returns == 0
    followed.down("it was unloaded")
    await until(lambda: followed.availability.reason is None)
    assert followed.returns == 1


async def test_a_model_whose_process_died_is_loaded_anew(server: Server, link: Link) -> None:
    server.loads = True
    followed = Owner().follow(link, None)
    await followed.first_info(None)
    followed.down("its process died", died=True)
    await until(lambda: followed.availability.reason is None)
    assert (server.loaded, followed.returns) == (1, 1)
    followed.down("it was unloaded")
    await until(lambda: followed.availability.reason is None)
    assert server.loaded == 1, "it is not dead, and others may have unloaded it"


async def test_where_loading_is_refused_the_reason_says_so(link: Link) -> None:
    followed = Owner().follow(link, None)
    await followed.first_info(None)
    for reason in ("its process died", "its process died; loading is not allowed"):
        followed.down("its process died", died=True)
        assert followed.availability.reason == reason
        await until(lambda: followed.availability.reason is None)


async def test_a_server_that_is_away_is_no_fault_of_the_model(server: Server, link: Link) -> None:
    followed = Owner().follow(link, None)
    await followed.first_info(None)
    server.down = "connection refused"
    assert not await followed.describe()
    assert followed.availability.reason is None
    assert link.availability.reason == "connection refused"


async def test_an_alias_moves_it(server: Server, link: Link) -> None:
    server.models["double"] = replace(DOUBLE, versions=("1",))
    followed = Owner().follow(link, "1", "live")
    await followed.first_info(None)
    followed.follow("2")
    assert (followed.version, followed.moves) == ("2", True)
    assert followed.availability.name == "model double alias live -> 2"
    assert followed.described == float("-inf"), "what is known is of another version"
    assert not await followed.describe()
    assert followed.availability.reason == "double 2 is not there"
    followed.follow(None)
    await until(lambda: followed.availability.reason is None)


async def test_metadata_that_came_after_the_alias_had_moved_is_not_believed(
    server: Server, link: Link
) -> None:
    followed = Owner().follow(link, "1", "live")
    await followed.first_info(None)
    looking = asyncio.create_task(followed.describe())
    seen = server.described
    await until(lambda: server.described > seen)
    followed.follow("9")
    assert not await looking
    assert followed.availability.reason == "double 9 is not there"


async def test_nobody_waits_for_it_when_all_has_ended(server: Server, link: Link) -> None:
    server.gone.add("double")
    followed = Owner().follow(link, None)
    waiting = asyncio.create_task(followed.first_info(None))
    await until(lambda: followed.availability.reason)
    await link.close()
    followed.end()
    with pytest.raises(NotConnected):
        await waiting


def test_what_is_followed_is_named_for_people() -> None:
    assert title_of("leaf", None, None) == "model leaf"
    assert title_of("leaf", "2", None) == "model leaf version 2"
    assert title_of("leaf", "2", "live") == "model leaf alias live -> 2"
    assert title_of("leaf", None, "live") == "model leaf alias live -> latest"
