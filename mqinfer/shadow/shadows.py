"""Shadows: which versions of models answer beside the live ones, kept where aliases are.

A shadow is a run (`replay.run`) whose range goes on. Which one a model has says one value in the
bucket of the aliases, under `<model>.=shadow`, so that a worker reads one small value a model to
know that there is none. It reads as an alias, which is how versions that know of no shadows take
it; whether it goes on, its run alone says.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from mqinfer.errors import ConfigurationError, ConflictError
from mqinfer.inference.aliases import SHADOW
from mqinfer.message import key_token
from mqinfer.replay.ranges import Wanted
from mqinfer.replay.run import LATE, State

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.bucket import Bucket
    from mqinfer.replay.run import Run
    from mqinfer.replay.runs import Runs

# Of each model's slots in Triton, in each process: what a shadow takes of them.
SLOTS = 0.25


class Shadow(msgspec.Struct, frozen=True, kw_only=True):
    """Which run is the shadow of a model.

    Attributes:
        model: its name.
        alias: what it is among the aliases.
        version: that answers beside.
        set: when it was.
        run: its name.
    """

    model: str
    alias: str = SHADOW
    version: str
    set: datetime.datetime
    run: str


class Shadows:
    """The shadows of one app.

    Args:
        app: the app.
        bucket: of the aliases.
        runs: of the app.
        now: the time of day.
    """

    def __init__(
        self,
        app: App,
        bucket: Bucket,
        runs: Runs,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ):
        self.app = app
        self.runs = runs
        self._bucket = bucket
        self._now = now

    async def find(self, model: str) -> Shadow | None:
        """What was set for a model last, whether its run goes on or not; or None.

        Raises:
            ConfigurationError: what is there is none.
            Unavailable: NATS does not answer.
        """
        return (await self._read(model))[0]

    async def standing(self, models: Iterable[str]) -> list[tuple[Shadow, Run]]:
        """The shadows of these models that go on, or have an end and are not through with it."""
        found = []
        for model in models:
            shadow = await self.find(model)
            run = None if shadow is None else await self.runs.find(shadow.run)
            if shadow is not None and run is not None and run.state is State.RUNNING:
                found.append((shadow, run))
        return found

    async def begin(
        self,
        model: str,
        version: str,
        share: float,
        *,
        stage: str | None = None,
        name: str | None = None,
        late: float = LATE,
    ) -> Run:
        """Let a version answer beside the live one, from now on.

        Args:
            model: its name.
            version: that answers.
            share: of the live messages of the stage.
            stage: that asks the model; None where only one does.
            name: of the run; None makes one.
            late: seconds after which a message is passed over.

        Raises:
            ConfigurationError: it has one that goes on, or something does not fit.
            ConflictError: the name was used before, or another was quicker.
            Unavailable: NATS does not answer.
        """
        stage = stage or self._stage(model)
        _, revision = await self._read(model)
        for one, _ in await self.standing([model]):
            raise ConfigurationError(
                f"version {one.version} of {model} is a shadow already, as run {one.run}: end it "
                f"(mqinfer models APP --no-shadow {model}), and wait until it is done, or discard "
                f"it (mqinfer runs discard APP {one.run})"
            )
        now = self._now()
        run = await self.runs.create(
            stage=stage,
            wanted=Wanted(),
            name=name or _name(model, version, now),
            models={model: version},
            share=SLOTS,
            beside=share,
            late=late,
        )
        await self._bucket.ensure()
        shadow = Shadow(model=model, version=version, set=now.replace(microsecond=0), run=run.name)
        if not await self._bucket.save(_key(model), msgspec.json.encode(shadow), revision):
            raise ConflictError(
                f"another shadow of {model} was set at the same moment; run {run.name} stays "
                f"without work: mqinfer runs discard APP {run.name}"
            )
        return run

    async def end(self, model: str) -> Run:
        """Let a model's shadow end with what is stored by now.

        Raises:
            ConfigurationError: it has none that goes on.
            Unavailable: NATS does not answer.
        """
        for one, _ in await self.standing([model]):
            return await self.runs.end(one.run)
        raise ConfigurationError(f"model {model} has no shadow")

    def _stage(self, model: str) -> str:
        """The one stage that asks a model.

        Raises:
            ConfigurationError: none does, or several do.
        """
        found = [
            stage.name
            for stage in self.app.stages.values()
            if any(one.name == model for one in stage.models)
        ]
        if len(found) == 1:
            return found[0]
        if not found:
            raise ConfigurationError(
                f"no stage of app {self.app.name} is seen to ask model {model}: say which one does "
                "(--stage)"
            )
        raise ConfigurationError(
            f"model {model} is asked by {', '.join(found)}: say which one has a shadow (--stage)"
        )

    async def _read(self, model: str) -> tuple[Shadow | None, int]:
        key = _key(model)
        found = await self._bucket.load(key)
        if found is None or not found[0]:
            return None, 0 if found is None else found[1]
        try:
            return msgspec.json.decode(found[0], type=Shadow), found[1]
        except msgspec.DecodeError as error:
            raise ConfigurationError(
                f"what the models bucket holds under {key} is no shadow: {error}"
            ) from None


def _key(model: str) -> str:
    return f"{key_token(model)}.{SHADOW}"


def _name(model: str, version: str, now: datetime.datetime) -> str:
    """A name of a run that says what it is; letters, digits and _ (see `runs.check`)."""
    plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in f"{model}_{version}")
    return f"{plain[:24]}_{now:%y%m%d_%H%M%S}"
