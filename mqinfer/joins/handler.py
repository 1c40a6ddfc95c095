"""Handler: the handler of a join as that of a stage, given what it was told as it wants it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any

from mqinfer.errors import DecodeError
from mqinfer.joins.telling import decode

if TYPE_CHECKING:
    from mqinfer.codec import Codec
    from mqinfer.completion.assemble import Died
    from mqinfer.context import Context
    from mqinfer.hooks import Call, Hook
    from mqinfer.join import Join, Joined
    from mqinfer.stage import Stage


def as_stage(stage: Stage, codec: Codec) -> Stage:
    """The stage of a join, whose handler takes what it reads; another stage is as it was.

    Args:
        stage: as it was declared.
        codec: of its worker.
    """
    join = stage.join
    if join is None:
        return stage
    handler, signature = stage.handler, stage.signature

    async def arguments(joined: Joined, context: Context) -> tuple[Any, ...]:
        root, outputs, died = await _given(joined, join, codec)
        context.join_told(died, joined.incomplete, joined.missing)
        return (root, outputs, context) if signature.wants_context else (root, outputs)

    async def call(joined: Joined, context: Context) -> Any:
        return await handler(*await arguments(joined, context))

    async def run(joined: Joined, context: Context) -> AsyncGenerator[Any]:
        async with aclosing(handler(*await arguments(joined, context))) as outputs:
            async for output in outputs:
                yield output

    wrapped: Callable[..., Any] = call if signature.kind == "coroutine" else run
    around = tuple(_of_root(hook, arguments) for hook in stage.around)
    told = replace(signature, wants_context=True)
    return replace(stage, handler=wrapped, signature=told, around=around)


def _of_root(
    hook: Hook, arguments: Callable[[Joined, Context], Awaitable[tuple[Any, ...]]]
) -> Hook:
    """A hook that is given the root, in place of the message that tells of it."""

    @wraps(hook)
    async def given(joined: Joined, context: Context, call: Call) -> None:
        root, *_ = await arguments(joined, context)
        await hook(root, context, call)

    return given


async def _given(
    joined: Joined, join: Join, codec: Codec
) -> tuple[Any, list[Any], tuple[Died, ...]]:
    """The root, its outputs, and what died."""
    root, outputs, died = joined.root, joined.outputs, joined.died
    if joined.stored is not None:
        root, outputs, died = decode(await joined.stored.bytes())
    if root is None:
        raise DecodeError(f"join {join.name}: this message tells of no root")
    kinds = {kind.__mqinfer__.subject: kind for kind in join.of}
    given = [
        codec.decode(kinds[one.subject], one.payload.data, one.payload.content_type or None)
        for one in outputs
        if one.subject in kinds
    ]
    return codec.decode(join.root, root.data, root.content_type or None), given, died
