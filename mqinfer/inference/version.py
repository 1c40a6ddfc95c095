"""Version: a model as its server has it now: which version is followed, its metadata, up or down.

A model that is down is asked for again and again until it answers; one whose process died is
loaded anew, where the server allows it. Whoever depends on it is told by `changed`. What comes of
the calls meanwhile is the business of its queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from mqinfer.backoff import Attempts
from mqinfer.context import Context
from mqinfer.errors import ConfigurationError, ModelUnavailable, MqinferError, Unavailable
from mqinfer.flow.availability import Availability
from mqinfer.inference.link import PROBES, Link
from mqinfer.ports import ModelInfo

log = structlog.get_logger("mqinfer.inference")


class FollowedVersion:
    """A model in the version that is followed.

    Args:
        link: the server.
        model: its name.
        version: None follows the latest.
        alias: that names the version; `follow` then moves it to another.
        changed: is called when the model came back or went down.
        learned: is called with metadata that is new.

    Attributes:
        info: its metadata; None until it was first there.
        availability: whether it answers.
        described: when it was last asked for its metadata, by the link's clock.
        returns: how often it came back.
        attempts: to hear whether it is there.
    """

    def __init__(
        self,
        link: Link,
        model: str,
        version: str | None,
        alias: str | None,
        *,
        changed: Callable[[], None],
        learned: Callable[[ModelInfo], None],
    ):
        self.model = model
        self.version = version
        self.alias = alias
        self.info: ModelInfo | None = None
        self.availability = Availability(title_of(model, version, alias), link.clock)
        self.described = float("-inf")
        self.returns = 0
        self.attempts = Attempts(PROBES)
        self._link = link
        self._changed = changed
        self._learned = learned
        self._known = asyncio.Event()
        self._died = self._told_down = False
        # Its process died, and it is to be loaded anew; and why that is refused.
        self._to_load = False
        self._refusal = ""
        self._recovery: asyncio.Task[None] | None = None
        self._recover_soon()

    @property
    def moves(self) -> bool:
        """Whether another version may take over."""
        return self.version is None or self.alias is not None

    @property
    def expected(self) -> str:
        """The version that should answer now, for requests whose version no reply tells."""
        if self.version is not None:
            return self.version
        return self.info.versions[-1] if self.info and self.info.versions else ""

    def follow(self, version: str | None) -> None:
        """Another version from now on; what was sent is answered by the one before."""
        if version != self.version:
            log.info("alias", model=self.model, alias=self.alias, version=version or "latest")
            self.version = version
            self.availability.name = title_of(self.model, version, self.alias)
            self.described = float("-inf")

    async def first_info(self, context: Context | None) -> ModelInfo:
        """Its metadata, waited for; the wait is not the handler's time.

        Raises:
            NotConnected: the link was closed meanwhile.
        """
        if context is not None:
            context.pause(self._link.clock())
        try:
            await self._known.wait()
        finally:
            if context is not None:
                context.resume(self._link.clock())
        self._link.require_open()
        assert self.info is not None
        return self.info

    async def describe(self) -> bool:
        """Ask for the metadata; False when the model or the server turned out to be down."""
        asked, version = self._link.clock(), self.version
        try:
            info = await self._link.describe(self.model, version)
        except MqinferError as error:
            if isinstance(error, Unavailable) and not isinstance(error, ModelUnavailable):
                self._link.down(str(error))
                return False
            info, reason = None, str(error)
        if version != self.version:  # the alias has moved meanwhile
            return await self.describe()
        if info is None:
            self.down(reason)
        else:
            self._learn(info, asked)
        return info is not None

    def down(self, reason: str, *, died: bool = False) -> None:
        """It does not answer; `died`: its process did, which the server may not notice."""
        if died:
            self._to_load = True
            if self._refusal:
                reason = f"{reason}; {self._refusal}"
        if not self._told_down:
            log.warning("model is down", model=self.model, version=self.version, reason=reason)
        self._told_down = True
        # The server calls a model ready whose process died: only an answer tells that it is back.
        self._died = died
        self.availability.down(reason)
        self._recover_soon()
        self._changed()

    def answered(self) -> None:
        """A request was answered."""
        self.attempts.reset()
        self._to_load = False
        self._tell_back()

    def end(self) -> None:
        """Nobody waits for it any more."""
        self._known.set()

    def _learn(self, info: ModelInfo, asked: float) -> None:
        self.described = asked
        if info != self.info:
            log.info("model", model=self.model, version=self.version, served=info.versions)
            self.info = info
            self._learned(info)
        self._known.set()
        if self.availability.reason is not None:
            if not self._died:
                self.returns += 1
                self._tell_back()
            self.availability.up()
            self._changed()

    def _tell_back(self) -> None:
        if self._told_down:
            self._told_down = False
            log.info("model is back", model=self.model, version=self.version)

    def _recover_soon(self) -> None:
        if self._recovery is None and not self._link.closed:
            self._recovery = self._link.spawn(self._recover(), f"{self.availability.name} probe")

    async def _recover(self) -> None:
        while True:
            await asyncio.sleep(self.attempts.next())
            await self._link.availability.wait_up()
            if self._to_load:
                await self._load_anew()
            if await self.describe():
                break
        self._recovery = None

    async def _load_anew(self) -> None:
        """Have it loaded whose process died; where that is refused, say what to do."""
        try:
            await self._link.reload(self.model)
        except ConfigurationError as error:
            self._to_load = False
            if not self._refusal:
                log.warning("a model's process died", model=self.model, reason=str(error))
            self._refusal = str(error)
        except MqinferError as error:
            log.warning("a model is not loaded anew", model=self.model, reason=str(error))
        else:
            log.info("model was loaded anew", model=self.model)
            self._to_load = self._died = False
            self._refusal = ""


def title_of(model: str, version: str | None, alias: str | None) -> str:
    """What is followed, for people; version None is the latest."""
    if alias is not None:
        return f"model {model} alias {alias} -> {version or 'latest'}"
    return f"model {model}" + (f" version {version}" if version else "")
