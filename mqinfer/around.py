"""Around: how an app declares people's own hooks around its handlers; `hooks` runs them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar, overload

from mqinfer.errors import WiringError
from mqinfer.hooks import Hook, name_of

if TYPE_CHECKING:
    from mqinfer.stage import Stage

AnyHook = TypeVar("AnyHook", bound=Hook)


@dataclass(frozen=True, slots=True)
class Surrounding:
    """A hook as it was declared.

    Attributes:
        hook: the function.
        stages: names of those that it is around; None is all.
    """

    hook: Hook
    stages: tuple[str, ...] | None


class Surrounded:
    """The part of `App` that declares hooks."""

    _surroundings: list[Surrounding]
    _stages: dict[str, Stage] | None

    @overload
    def around(self, hook: AnyHook, /) -> AnyHook: ...

    @overload
    def around(self, *, stages: str | Sequence[str]) -> Callable[[AnyHook], AnyHook]: ...

    def around(
        self, hook: AnyHook | None = None, *, stages: str | Sequence[str] | None = None
    ) -> AnyHook | Callable[[AnyHook], AnyHook]:
        """Declare a hook around every handler, or those of some stages; see docs/around.md.

            @app.around
            async def timed(message, ctx, call):
                begun = time.perf_counter()
                try:
                    await call()
                finally:
                    seconds[ctx.stage].observe(time.perf_counter() - begun)

        It runs once for each handling: anew for an attempt, and for a batch, of which it is given
        the lists of messages and contexts. `await call()` runs the handler and gives its outputs
        (a sequence; of a batch its results), or raises what it raised. What the hook returns is of
        no account; what it raises fails the message as if the handler had. Hooks that were declared
        earlier are further out. Replays and shadows run them, too.

        Args:
            hook: when used as `@app.around`.
            stages: names of the stages and joins, or one name; None is all.
        """

        def declare(function: AnyHook) -> AnyHook:
            names = (stages,) if isinstance(stages, str) else stages
            self._surroundings.append(
                Surrounding(function, None if names is None else tuple(names))
            )
            self._stages = None
            return function

        return declare if hook is None else declare(hook)


def surround(
    stages: Mapping[str, Stage], surroundings: Sequence[Surrounding]
) -> tuple[dict[str, Stage], list[WiringError]]:
    """The stages with the hooks around them, and what is wrong with those."""
    found, problems = dict(stages), []
    for one in surroundings:
        name = name_of(one.hook)
        if (why := _unfit(one.hook)) is not None:
            problems.append(
                WiringError(
                    f"app.around {name}: {why}; a hook is "
                    "`async def hook(message, context, call)`, which awaits call()"
                )
            )
            continue
        for stage in stages if one.stages is None else one.stages:
            if stage in found:
                found[stage] = replace(found[stage], around=(*found[stage].around, one.hook))
            else:
                known = ", ".join(stages) or "none"
                text = f"app.around {name}: there is no stage {stage!r}; there are {known}"
                problems.append(WiringError(text))
    return found, problems


def _unfit(hook: object) -> str | None:
    """Why something cannot be a hook, or None."""
    if not callable(hook):
        return f"{hook!r} cannot be called"
    called = hook if inspect.isroutine(hook) else type(hook).__call__
    if inspect.isasyncgenfunction(called):
        return "it yields"
    if not inspect.iscoroutinefunction(called):
        return "it is no async function"
    try:
        inspect.signature(hook).bind(None, None, None)
    except TypeError:
        return f"it takes {inspect.signature(hook)}"
    return None
