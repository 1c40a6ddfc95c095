"""Hooks: what runs around a handler: it sees all, may refuse by raising, and hides nothing.

The outcome is what the handler gave or raised, whatever a hook returns: one that forgets to hand on
what it was told loses no answer, and one that swallows an error or a cancellation hides none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

# Runs the handler, or the hooks further in; gives its outputs, of a batch one result a message.
Call = Callable[[], Awaitable[Any]]
# Takes a message and its context, of a batch a list of each, and the call.
Hook = Callable[[Any, Any, Call], Awaitable[Any]]


def name_of(hook: Hook) -> str:
    """What a hook is called, for error texts."""
    return str(getattr(hook, "__name__", None) or type(hook).__name__)


async def run(hooks: Sequence[Hook], message: object, context: object, handler: Call) -> Any:
    """What a handler gives, called inside of hooks; the first is the outermost.

    Raises:
        RuntimeError: a hook did not call, or called twice.
        BaseException: what the handler or a hook raised. What a hook swallowed is raised anew.
    """
    if not hooks:
        return await handler()
    hook, further = hooks[0], hooks[1:]
    inner = _Inner(hook, lambda: run(further, message, context, handler))
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    await hook(message, context, inner)
    if task.cancelling() - before > inner.cancelled:
        raise asyncio.CancelledError  # the hook swallowed it
    return inner.result()


class _Inner:
    """What a hook calls, once.

    Attributes:
        cancelled: how often the handler was cancelled, which is its own to heed.
    """

    __slots__ = ("_began", "_error", "_hook", "_inner", "_outputs", "_over", "cancelled")

    def __init__(self, hook: Hook, inner: Call):
        self.cancelled = 0
        self._hook = hook
        self._inner = inner
        self._began = self._over = False
        self._error: BaseException | None = None
        self._outputs: Any = None

    async def __call__(self) -> Any:
        if self._began:
            raise RuntimeError(f"app.around {name_of(self._hook)}: call() runs the handler once")
        self._began = True
        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        try:
            self._outputs = await self._inner()
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._over = True
            self.cancelled = task.cancelling() - before
        return self._outputs

    def result(self) -> Any:
        """How the handler ended.

        Raises:
            RuntimeError: it did not.
            BaseException: what it raised.
        """
        if self._error is not None:
            raise self._error
        if not self._over:
            raise RuntimeError(
                f"app.around {name_of(self._hook)}: it returned without awaiting call() to its "
                "end; to refuse a message raise mqinfer.Reject, or mqinfer.Retry to have it again"
            )
        return self._outputs
