"""Aliases in a store made for it: what is read, set and removed, and what a process follows."""

import datetime

import pytest

from mqinfer import App
from mqinfer.errors import ConfigurationError, ConflictError, Unavailable
from mqinfer.inference.aliases import Aliases, FollowedAliases, bucket, followed

NOON = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)


class Store:
    """A bucket in memory; `others` change a value before each of so many writes."""

    def __init__(self) -> None:
        self.values: dict[str, tuple[bytes, int]] = {}
        self.revision = 0
        self.down = False
        self.others = 0

    def put(self, name: str, value: bytes) -> None:
        self.revision += 1
        self.values[name] = (value, self.revision)

    async def ensure(self) -> None:
        pass

    async def load(self, name: str) -> tuple[bytes, int] | None:
        if self.down:
            raise Unavailable("nats is away")
        return self.values.get(name)

    async def save(
        self, name: str, value: bytes, revision: int, *, ttl: float | None = None
    ) -> bool:
        assert ttl is None, "an alias stays"
        if self.others:
            self.others -= 1
            self.put(name, b"{}")
        if self.values.get(name, (b"", 0))[1] != revision:
            return False
        self.put(name, value)
        return True

    async def delete(self, name: str, revision: int) -> bool:
        return await self.save(name, b"", revision)

    async def names(self) -> list[str]:
        return list(self.values)


def plants() -> App:
    app = App("plants")
    app.model("rust", alias="live", version=1)
    app.model("spots", alias="live")
    app.model("detector")
    return app


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def aliases(store: Store) -> Aliases:
    return Aliases(plants(), store, now=lambda: NOON)


def test_only_handles_with_an_alias_follow_one() -> None:
    assert followed(plants()) == [("rust", "live"), ("spots", "live")]
    assert bucket(plants()) == "plants-models"


async def test_an_alias_is_set_changed_and_removed(aliases: Aliases, store: Store) -> None:
    assert await aliases.set("rust", "live", "2") is None
    writes = store.revision
    same = await aliases.set("rust", "live", "2")
    assert same is not None
    assert (same.version, same.set) == ("2", NOON)
    assert store.revision == writes, "nothing is written where nothing changes"
    before = await aliases.set("rust", "live", "3")
    assert before is not None
    assert before.version == "2"
    assert [alias.version for alias in (await aliases.all()).values()] == ["3"]
    assert await aliases.resolve({"rust": "@live", "spots": "7"}) == {"rust": "3", "spots": "7"}
    removed = await aliases.unset("rust", "live")
    assert removed is not None
    assert removed.version == "3"
    assert await aliases.all() == {}
    assert await aliases.unset("rust", "live") is None
    with pytest.raises(ConfigurationError, match="rust@live is not set"):
        await aliases.resolve({"rust": "@live"})


async def test_what_nothing_follows_is_refused(aliases: Aliases) -> None:
    with pytest.raises(ConfigurationError, match="no model mould; it has: detector, rust, spots"):
        await aliases.set("mould", "live", "1")
    with pytest.raises(ConfigurationError, match="followed are: rust@live, spots@live"):
        await aliases.set("detector", "live", "1")


async def test_who_was_overtaken_looks_again(aliases: Aliases, store: Store) -> None:
    store.others = 3
    assert await aliases.set("rust", "live", "2") is None
    assert (await aliases.all())["rust", "live"].version == "2"
    store.others = 1_000
    with pytest.raises(ConflictError, match="keeps changing"):
        await aliases.set("rust", "live", "3")
    with pytest.raises(ConflictError, match="keeps changing"):
        await aliases.unset("rust", "live")


async def test_a_value_that_is_no_alias_is_told_and_can_be_replaced(
    aliases: Aliases, store: Store
) -> None:
    store.put("rust.live", b"2")
    with pytest.raises(ConfigurationError, match=r"under rust\.live is no alias"):
        await aliases.all()
    assert await aliases.set("rust", "live", "2") is None
    assert (await aliases.all())["rust", "live"].version == "2"


async def test_a_process_goes_on_with_what_it_read_last(aliases: Aliases, store: Store) -> None:
    reader = FollowedAliases(store, followed(aliases.app))
    await aliases.set("rust", "live", "2")
    await reader.refresh()
    assert not reader.known, "nothing is read before it is used"
    await reader.load()
    assert reader.known
    assert (reader.version("rust", "live"), reader.version("spots", "live")) == ("2", None)
    await aliases.set("rust", "live", "3")
    await reader.load()
    assert reader.version("rust", "live") == "2", "it is known: that is what refresh is for"
    store.down = True
    await reader.refresh()
    assert reader.version("rust", "live") == "2"
    store.down = False
    await reader.refresh()
    assert reader.version("rust", "live") == "3"
    await aliases.unset("rust", "live")
    await reader.refresh()
    assert reader.version("rust", "live") is None


async def test_the_first_read_must_succeed(store: Store) -> None:
    reader = FollowedAliases(store, [("rust", "live")])
    store.down = True
    with pytest.raises(Unavailable):
        await reader.load()
    assert not reader.known
