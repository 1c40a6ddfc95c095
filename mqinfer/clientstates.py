"""The states of stages as a client sees them: they are read, and never changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, overload

from mqinfer import plan, wiring
from mqinfer.errors import ConfigurationError, StateError
from mqinfer.state import reading
from mqinfer.statetype import State

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.codec import Codec
    from mqinfer.worker.services import Services

S = TypeVar("S", bound=State)


class ClientStates:
    """The part of `Client` that reads states."""

    app: App
    _services: Services
    _codec: Codec

    @overload
    async def state(self, stage: str, key: object, *, run: str | None = None) -> State | None: ...

    @overload
    async def state(
        self, stage: str, key: object, kind: type[S], *, run: str | None = None
    ) -> S | None: ...

    async def state(
        self,
        stage: str,
        key: object,
        kind: type[State] | None = None,
        *,
        run: str | None = None,
    ) -> State | None:
        """What a stage remembers of a key now; None if that is nothing.

            health = await client.state("watch", "p17", Health)

        Args:
            stage: its name.
            key: the value of its messages' `key=` field.
            kind: the type of its states, for type checkers.
            run: a replay run, which has states of its own.

        Raises:
            ConfigurationError: the stage has no states, or others than `kind`.
            StateError: it cannot be read as its type is now.
            Unavailable: NATS does not answer.
        """
        _, own = reading.remembering(self.app, stage)
        if kind is not None and not issubclass(own, kind):
            raise ConfigurationError(f"stage {stage} has states of {own.__name__}: name that type")
        bucket = self._services.broker.bucket(plan.memory_bucket(self.app))
        return await reading.load(self.app, stage, key, bucket, self._codec, run)

    async def states(self, stage: str, *, run: str | None = None) -> dict[str, State]:
        """All that a stage remembers now, by key as text; see `state`."""
        scanner = wiring.scanner(self._services.broker)
        found = {
            kept.key: kept
            async for kept in reading.listed(self.app, stage, scanner, self._codec, run)
        }
        for kept in found.values():
            if kept.problem:
                raise StateError(f"the state of stage {stage} for key {kept.key!r}: {kept.problem}")
        return {key: kept.state for key, kept in found.items() if kept.state is not None}
