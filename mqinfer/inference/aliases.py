"""Aliases: names for versions of models that are set at run time, and followed by workers.

An alias is one value in the bucket `<app>-models`, under `<model>.<alias>`. Whoever sets one does
it on the condition of the revision that was read, so that what a command says it replaced is what
it replaced. A worker only reads them, again and again: one that is away from NATS goes on with what
it read last.

A canary, another version that has a share of what asks by an alias, is a part of the alias's own
value: so whoever moves the alias ends it in the same write.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from mqinfer.bucket import Bucket, change
from mqinfer.errors import ConfigurationError, MqinferError
from mqinfer.message import key_token

if TYPE_CHECKING:
    from mqinfer.app import App

log = structlog.get_logger("mqinfer.inference")


# What the key of a model's shadow ends in, beside its aliases; no alias can be called so.
SHADOW: Final = "=shadow"


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """A version that has a share of what asks by an alias.

    Attributes:
        version: of the model.
        share: of all, by their first inputs.
        began: when it was let in.
    """

    version: str
    share: float
    began: datetime.datetime


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """What an alias stands for.

    Attributes:
        model: whose alias it is.
        alias: its name.
        version: that it names.
        set: when it was set.
        canary: that has a share, or None.
        back: why the last canary went back by itself, or "".
    """

    model: str
    alias: str
    version: str
    set: datetime.datetime
    canary: Canary | None = None
    back: str = ""


def bucket(app: App) -> str:
    """Where the aliases of an app are kept."""
    return f"{app.name}-models"


def followed(app: App) -> list[tuple[str, str]]:
    """The model and the alias of every handle that follows one."""
    return sorted({(m.name, m.alias) for m in app.models.values() if m.alias is not None})


def _key(model: str, alias: str) -> str:
    return f"{key_token(model)}.{alias}"


async def _read(store: Bucket, key: str) -> tuple[Alias | None, int]:
    """What is set, and the revision of that (0: never set).

    Raises:
        ConfigurationError: what is there is no alias.
    """
    found = await store.load(key)
    if found is None or not found[0]:
        return None, 0 if found is None else found[1]
    try:
        return msgspec.json.decode(found[0], type=Alias), found[1]
    except msgspec.DecodeError as error:
        raise ConfigurationError(
            f"what the models bucket holds under {key} is no alias ({error}): set it with "
            "mqinfer models APP --set MODEL@ALIAS=VERSION"
        ) from None


class Aliases:
    """The aliases of one app, to look at and to change.

    Args:
        app: the app.
        store: where they are kept.
        now: the time of day.
    """

    def __init__(
        self,
        app: App,
        store: Bucket,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ):
        self.app = app
        self._store = store
        self._now = now

    async def all(self) -> dict[tuple[str, str], Alias]:
        """Every alias that is set, by model and name.

        Raises:
            ConfigurationError: a value is no alias.
            Unavailable: NATS does not answer.
        """
        names = [key for key in await self._store.names() if not key.endswith(f".{SHADOW}")]
        found = [await _read(self._store, key) for key in names]
        return {(one.model, one.alias): one for one, _ in found if one is not None}

    async def find(self, model: str, alias: str) -> Alias | None:
        """One alias, or None where it is not set.

        Raises:
            ConfigurationError: the value is no alias.
            Unavailable: NATS does not answer.
        """
        return (await _read(self._store, _key(model, alias)))[0]

    async def set(self, model: str, alias: str, version: str) -> Alias | None:
        """Set an alias; gives what it was before. Writes nothing if it is so already.

        Raises:
            ConfigurationError: no handle of the app follows it.
            ConflictError: others keep changing it.
            Unavailable: NATS does not answer.
        """
        self.require(model, alias)
        key = _key(model, alias)
        await self._store.ensure()

        def named(value: bytes | None) -> bytes:
            before = _if_alias(value)
            if value is not None and before is not None and before.version == version:
                return value
            now = self._now().replace(microsecond=0)
            return msgspec.json.encode(Alias(model=model, alias=alias, version=version, set=now))

        before, _ = await change(self._store, key, named, what=f"{model}@{alias}")
        return _if_alias(before)

    async def unset(self, model: str, alias: str) -> Alias | None:
        """Remove an alias; gives what it was before, None if it was not set.

        Also one that no handle follows any more.

        Raises:
            ConfigurationError: no handle follows it, and it is not set.
            ConflictError: others keep changing it.
            Unavailable: NATS does not answer.
        """
        before, _ = await change(
            self._store, _key(model, alias), lambda _: None, what=f"{model}@{alias}"
        )
        if before is None:
            self.require(model, alias)
        return _if_alias(before)

    async def alter(self, model: str, alias: str, function: Callable[[Alias], Alias]) -> Alias:
        """Change an alias that is set; gives what it is then. Where nothing changes, none is made.

        Raises:
            ConfigurationError: it is not set, or `function` refuses.
            ConflictError: others keep changing it.
            Unavailable: NATS does not answer.
        """

        def altered(value: bytes | None) -> bytes:
            before = _if_alias(value)
            if value is None or before is None:
                raise ConfigurationError(
                    f"{model}@{alias} is not set: mqinfer models APP --set {model}@{alias}=VERSION"
                )
            after = function(before)
            return value if after == before else msgspec.json.encode(after)

        key = _key(model, alias)
        _, after = await change(self._store, key, altered, what=f"{model}@{alias}")
        assert after is not None
        return msgspec.json.decode(after, type=Alias)

    def require(self, model: str, alias: str) -> None:
        """Refuse an alias that no handle of the app follows.

        Raises:
            ConfigurationError: naming the models there are, or the aliases that are followed.
        """
        names = sorted({one.name for one in self.app.models.values()})
        if model not in names:
            has = ", ".join(names) or "none"
            raise ConfigurationError(f"app {self.app.name} has no model {model}; it has: {has}")
        pairs = followed(self.app)
        if (model, alias) not in pairs:
            has = ", ".join(f"{name}@{other}" for name, other in pairs) or "none"
            raise ConfigurationError(
                f"nothing in app {self.app.name} follows {model}@{alias}: declare it with "
                f'app.model("{model}", alias="{alias}"); followed are: {has}'
            )

    async def resolve(self, models: Mapping[str, str]) -> dict[str, str]:
        """The versions of `name -> version`, where `@alias` stands for what that alias names now.

        Raises:
            ConfigurationError: an alias is not set.
            Unavailable: NATS does not answer.
        """
        found = {}
        for model, version in models.items():
            if version.startswith("@"):
                alias = version[1:]
                named, _ = await _read(self._store, _key(model, alias))
                if named is None:
                    raise ConfigurationError(
                        f"{model}@{alias} is not set; mqinfer models APP shows what is"
                    )
                version = named.version
            found[model] = version
        return found


def _if_alias(value: bytes | None) -> Alias | None:
    """The alias that a value holds; None if it holds none, which a change may replace."""
    try:
        return None if value is None else msgspec.json.decode(value, type=Alias)
    except msgspec.DecodeError:
        return None


class FollowedAliases:
    """What the aliases stand for that a process follows, as last read.

    Args:
        reader: where they are read.
        wanted: model and alias of each.

    Attributes:
        known: whether they were read.
        canaries: by model and alias; always the same dictionary.
    """

    def __init__(self, reader: Bucket, wanted: Iterable[tuple[str, str]]):
        self._reader = reader
        self._wanted = tuple(wanted)
        self._versions: dict[tuple[str, str], str] = {}
        self._reading = asyncio.Lock()
        self._trouble: str | None = None
        self.known = False
        self.canaries: dict[tuple[str, str | None], Canary] = {}

    def version(self, model: str, alias: str) -> str | None:
        """The version that an alias names, or None if it is not set."""
        return self._versions.get((model, alias))

    async def load(self) -> None:
        """Read them, unless they are known.

        Raises:
            ConfigurationError: a value is no alias.
            PermissionDenied: the bucket may not be read.
            Unavailable: NATS does not answer.
        """
        async with self._reading:
            if not self.known:
                await self._read()

    async def refresh(self) -> None:
        """Read them again, if they are used; where that fails, what was read last holds."""
        if not self.known:
            return
        try:
            async with self._reading:
                await self._read()
        except MqinferError as error:
            if self._trouble is None:
                log.warning("aliases cannot be read: the last known are used", reason=str(error))
            self._trouble = str(error)
        else:
            self._trouble = None

    async def _read(self) -> None:
        found: dict[tuple[str, str], str] = {}
        canaries: dict[tuple[str, str | None], Canary] = {}
        for model, alias in self._wanted:
            named, _ = await _read(self._reader, _key(model, alias))
            if named is not None:
                found[model, alias] = named.version
                if named.canary is not None:
                    canaries[model, alias] = named.canary
        self._versions = found
        for gone in self.canaries.keys() - canaries.keys():
            del self.canaries[gone]
        self.canaries.update(canaries)
        self.known = True
