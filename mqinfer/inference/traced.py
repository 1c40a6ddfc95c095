"""Traced: model calls as spans: one for each, and one for the request that several went in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING

from mqinfer.inference.inference import Inference

if TYPE_CHECKING:
    from mqinfer.model import Answer, Array, Model
    from mqinfer.tracing.spans import Span


class TracedInference(Inference):
    """Model calls of a process that traces; made with `tracing=`."""

    async def ask(self, model: Model, inputs: Mapping[str, Array]) -> Answer:
        """As of `Inference`; the span has the time in the queue, too."""
        with self._span(model) as span:
            answer = await super().ask(model, inputs)
            span.tell({"mqinfer.model.version": answer.version})
            return answer

    async def stream(self, model: Model, inputs: Mapping[str, Array]) -> AsyncGenerator[Answer]:
        """As of `Inference`; the span ends after the last part."""
        # A generator runs in its caller's context, where nothing may be left between two parts.
        span = self._span(model)
        count = 0
        try:
            async with aclosing(super().stream(model, inputs)) as parts:
                async for part in parts:
                    count += 1
                    yield part
        except BaseException as error:
            span.end(None if isinstance(error, GeneratorExit) else error)
            raise
        span.tell({"mqinfer.parts": count})
        span.end()

    def _span(self, model: Model) -> Span:
        assert self.tracing is not None
        told = {"mqinfer.model": model.name}
        if model.target.alias is not None:
            told["mqinfer.model.alias"] = model.target.alias
        return self.tracing.span(f"model {model.name}", "client", None, told)
