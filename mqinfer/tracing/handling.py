"""Handling: the hooks that make spans of what a stage does; each attempt is one of its own.

A span is the child of whoever published the message, and the parent of whatever comes of it. A
batch has a span in each message's trace, and one for all of them in a trace of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mqinfer.errors import Reject
from mqinfer.identity import LINKS
from mqinfer.message import Rejected
from mqinfer.tracing.spans import Attributes, Tracing, replaced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mqinfer.context import Context
    from mqinfer.hooks import Call, Hook
    from mqinfer.stage import Stage


def traced(stage: Stage, tracing: Tracing | None) -> Stage:
    """A stage with a hook around it that makes spans, outside of all others; None changes none."""
    if tracing is None:
        return stage
    return replace(stage, around=(_hook(stage, tracing), *stage.around))


def _hook(stage: Stage, tracing: Tracing) -> Hook:
    name, joins = f"stage {stage.name}", stage.join is not None

    async def one(message: object, context: Context, call: Call) -> None:
        del message
        before = context.headers
        try:
            links = before.get(LINKS, "").split() if joins else ()
            with tracing.span(name, "consumer", before, _attributes(context), links) as span:
                context.headers = replaced(before, span.headers)
                await call()
        except BaseException:
            context.headers = before  # what comes of a failure is no child of it
            raise

    async def many(messages: object, contexts: Sequence[Context], call: Call) -> None:
        del messages
        before = [context.headers for context in contexts]
        spans = [
            tracing.span(name, "consumer", context.headers, _attributes(context))
            for context in contexts
        ]
        for context, span in zip(contexts, spans, strict=True):
            context.headers = replaced(context.headers, span.headers)
        count = {"messaging.batch.message_count": len(contexts)}
        recorded = [span for span in spans if span.recorded]
        shared = spans[0]  # of a batch that nobody traces: what it asks for begins no trace either
        if recorded:
            shared = tracing.together(f"batch {stage.name}", "consumer", recorded, count)
        try:
            with shared:
                results: Any = await call()
        except BaseException as error:
            for context, headers, span in zip(contexts, before, spans, strict=True):
                context.headers = headers
                span.end(error)
            raise
        for span, result in zip(spans, results, strict=True):
            span.end(Reject(result.reason) if isinstance(result, Rejected) else None)

    return many if stage.signature.batch else one


def _attributes(context: Context) -> Attributes:
    told: dict[str, str | int | bool] = {
        "messaging.system": "nats",
        "messaging.operation.type": "process",
        "messaging.destination.name": context.subject,
        "messaging.message.id": context.id,
        "mqinfer.stage": context.stage,
        "mqinfer.attempt": context.attempt,
        "mqinfer.sequence": context.sequence,
    }
    if context.run is not None:
        told["mqinfer.run"] = context.run
    return told
