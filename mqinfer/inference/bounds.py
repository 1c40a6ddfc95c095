"""Bounds: how long calls outside of handlers may take, with one look a second for all of them.

A timer for each call would be a quarter of what a call costs, and next to none of them ever runs
out. So a bound that is far away is only noted, and gets a timer of its own when it comes near.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Set
from typing import TYPE_CHECKING

from mqinfer.errors import ModelTimeout

if TYPE_CHECKING:
    from mqinfer.inference.calls import Call

LOOK = 1.0  # seconds between looks


class Bounds:
    """The bounds of the calls of one model.

    Args:
        model: its name.
        blocked: why it answers nothing now, or None.
        withdraw: called with a call whose time is over, and that was told so.
        calls: those that wait.
    """

    def __init__(
        self,
        model: str,
        blocked: Callable[[], str | None],
        withdraw: Callable[[Call], None],
        calls: Set[Call],
    ):
        self._model = model
        self._blocked = blocked
        self._withdraw = withdraw
        self._calls = calls
        self._near: dict[Call, asyncio.TimerHandle] = {}
        self._next: asyncio.TimerHandle | None = None

    def begin(self, call: Call, seconds: float | None) -> None:
        """It may take so many seconds from now on; None is no bound."""
        if seconds is None:
            return
        loop = call.future.get_loop()
        call.until = until = loop.time() + seconds
        call.seconds = seconds
        if seconds <= 2 * LOOK:
            self._near[call] = loop.call_at(until, self._run_out, call)
        elif self._next is None:
            self._next = loop.call_later(LOOK, self._look, loop)

    def end(self, call: Call) -> None:
        """It has ended; without effect on one that has no bound."""
        if self._near and (timer := self._near.pop(call, None)):
            timer.cancel()

    def overdue(self, seconds: float) -> ModelTimeout:
        """The error of a caller that got no answer in so many seconds."""
        why = self._blocked() or "its callers before it are answered first"
        return ModelTimeout(
            f"model {self._model}: no answer within {seconds:g} s ({why}): "
            "pass timeout= to app.model"
        )

    def close(self) -> None:
        """Nothing runs out any more."""
        for timer in self._near.values():
            timer.cancel()
        if self._next is not None:
            self._next.cancel()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        soon, far = loop.time() + 2 * LOOK, False
        for call in self._calls:
            if call.until > soon:
                far = far or call.until < math.inf
            elif call not in self._near and not call.future.done():
                self._near[call] = loop.call_at(call.until, self._run_out, call)
        self._next = loop.call_later(LOOK, self._look, loop) if far else None

    def _run_out(self, call: Call) -> None:
        del self._near[call]
        if not call.future.done():
            call.fail(self.overdue(call.seconds))
            self._withdraw(call)

    def __repr__(self) -> str:
        bound = sum(call.until < math.inf for call in self._calls)
        return f"Bounds({bound - len(self._near)} far away, {len(self._near)} near)"
