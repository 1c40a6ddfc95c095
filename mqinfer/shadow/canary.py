"""Canaries: a version that answers a share of what asks by an alias, for real.

A canary is a part of the alias's own value (`inference.aliases`), which workers follow; here is how
it is let in, widened, promoted and taken back. Each is one write on the condition of what was read.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from mqinfer.errors import ConfigurationError
from mqinfer.inference.aliases import Alias, Canary, followed

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.inference.aliases import Aliases


class Canaries:
    """The canaries of one app.

    Args:
        app: the app.
        aliases: of the app.
        now: the time of day.
    """

    def __init__(
        self,
        app: App,
        aliases: Aliases,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ):
        self.app = app
        self.aliases = aliases
        self._now = now

    def alias_of(self, name: str) -> tuple[str, str]:
        """The model and the alias of `model` or `model@alias`.

        Raises:
            ConfigurationError: nothing follows it, or it is not said which of several.
        """
        model, _, alias = name.partition("@")
        if alias:
            self.aliases.require(model, alias)
            return model, alias
        found = [one for one in followed(self.app) if one[0] == model]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(f"{model}@{alias}" for _, alias in found)
            raise ConfigurationError(f"model {model} is asked by {names}: say which of them")
        raise ConfigurationError(
            f"nothing in app {self.app.name} asks {model} by an alias, which a canary is a share "
            f'of: declare it with app.model("{model}", alias="live")'
        )

    async def let_in(self, name: str, version: str, share: float) -> Alias:
        """Give a version a share, or the one that has it another; gives the alias after it.

        Args:
            name: of the model, or `model@alias`.
            version: that has the share.
            share: of all; more than 0, less than 1.

        Raises:
            ConfigurationError: the alias is not set, names this version, or something does not fit.
            Unavailable: NATS does not answer.
        """
        model, alias = self.alias_of(name)
        if not 0 < share < 1:
            raise ConfigurationError(
                f"a canary's share is more than 0 and less than 1, not {share:g}: all of it is "
                f"--set {model}@{alias}={version}"
            )

        def changed(before: Alias) -> Alias:
            if before.version == version:
                raise ConfigurationError(f"{model}@{alias} is version {version} already")
            old = before.canary
            began = self._now().replace(microsecond=0)
            if old is not None and old.version == version:
                began = old.began
            made = Canary(version=version, share=share, began=began)
            return replace(before, canary=made, back="")

        return await self.aliases.alter(model, alias, changed)

    async def take_back(
        self, model: str, alias: str, why: str = "", *, seen: Canary | None = None
    ) -> bool:
        """Let an alias name all again; whether there was a canary.

        Args:
            model: its name.
            alias: its name.
            why: it went back by itself, or "".
            seen: the canary that is meant; another one stays. None is any.

        Raises:
            ConfigurationError: the alias is not set.
            Unavailable: NATS does not answer.
        """
        was = False

        def changed(before: Alias) -> Alias:
            nonlocal was
            old = before.canary
            was = old is not None and (
                seen is None or (old.version, old.began) == (seen.version, seen.began)
            )
            return replace(before, canary=None, back=why) if was else before

        await self.aliases.alter(model, alias, changed)
        return was

    async def promote(self, name: str) -> Alias:
        """Let an alias name its canary from now on; gives the alias after it.

        Raises:
            ConfigurationError: it has none.
            Unavailable: NATS does not answer.
        """
        model, alias = self.alias_of(name)

        def changed(before: Alias) -> Alias:
            if before.canary is None:
                raise ConfigurationError(f"{model}@{alias} has no canary")
            now = self._now().replace(microsecond=0)
            return Alias(model=model, alias=alias, version=before.canary.version, set=now)

        return await self.aliases.alter(model, alias, changed)
