"""Which models the server of the stack does not serve, and why: each told once, and when mended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable

from mqinfer.stack.errors import StackError
from mqinfer.stack.triton import ModelState

# Seconds between two looks; a change of a folder is taken up within about one.
_LOOKS = 1.0
# States that pass by themselves.
_PASSING = ("LOADING", "UNLOADING")


class ModelReport:
    """Tells of the models of one server.

    Args:
        server: its name, for the text.
        states: asks it for every version of every model.
        out: gets each line.
    """

    def __init__(
        self,
        server: str,
        states: Callable[[], Awaitable[Iterable[ModelState]]],
        out: Callable[[str], None],
    ):
        self._server = server
        self._states = states
        self._out = out
        self._told: dict[tuple[str, str], str] = {}

    async def look(self) -> None:
        """Tell what is new; a server that does not answer has no news."""
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, StackError):
            self._tell({(one.name, one.version): one for one in await self._states()})

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOKS)

    def _tell(self, found: dict[tuple[str, str], ModelState]) -> None:
        ready = {name for (name, _), one in found.items() if one.state == "READY"}
        for key in [*self._told]:
            name, version = key
            if key in found and found[key].state != "READY":
                continue
            # A model is listed without a version until one was found in it.
            if key in found or (name in ready and not version):
                self._out(f"loaded now: {' '.join(key).rstrip()}")
            elif any(name == other for other, _ in found):
                continue  # another of its troubles, or between the two
            del self._told[key]
        for key, one in found.items():
            if one.state in ("READY", *_PASSING):
                continue
            if one.reason in ("", "unloaded", self._told.get(key)):
                continue
            what = " ".join(key).rstrip()
            self._out(f"warning: {self._server} does not serve {what}: {one.reason}")
            self._told[key] = one.reason
