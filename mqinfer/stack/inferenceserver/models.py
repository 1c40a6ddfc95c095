"""The models of a repository: loaded, replaced, unloaded, and what is told of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mqinfer.stack.inferenceserver import config as configuration
from mqinfer.stack.inferenceserver.config import BadModel
from mqinfer.stack.inferenceserver.process import Instance, LoadFailed
from mqinfer.stack.inferenceserver.refused import Refused, internal, invalid, not_found, unavailable
from mqinfer.stack.inferenceserver.served import Served
from mqinfer.stack.inferenceserver.statistics import Statistics
from mqinfer.stack.repository import scan

READY, UNAVAILABLE, LOADING, UNLOADING = "READY", "UNAVAILABLE", "LOADING", "UNLOADING"
# Models that are loaded at a time when the server starts.
_LOADS = 4


class Entry(NamedTuple):
    """A line of the repository's index; of a folder that holds no model, the version is empty."""

    name: str
    version: str
    state: str
    reason: str


class Loaded(NamedTuple):
    """A version that is served, and what it was loaded from: the configuration as written."""

    served: Served
    written: Any
    files: frozenset[Any]


@dataclass(slots=True)
class Model:
    """One folder of the repository.

    Attributes:
        versions: that are served.
        states: of the others that were loaded or tried: state and reason.
        reason: why nothing of it was loaded, where that is not about a version.
        turn: one load or unload at a time.
    """

    versions: dict[int, Loaded] = field(default_factory=dict)
    states: dict[int, tuple[str, str]] = field(default_factory=dict)
    reason: str = ""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Models:
    """All models of a repository.

    Args:
        root: the repository.
        say: gets each line for the log.
    """

    def __init__(self, root: Path, say: Callable[[str], None]):
        self._root = root
        self._say = say
        self._models: dict[str, Model] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def load_all(self) -> None:
        """Load everything that there is; what does not load is told in the index."""
        turns = asyncio.Semaphore(_LOADS)

        async def load(name: str) -> None:
            async with turns:
                with contextlib.suppress(Refused):  # it stands in the index and in the log
                    await self.load(name)

        await asyncio.gather(*map(load, scan(self._root)))

    async def load(self, name: str) -> None:
        """Load a model as its folder has it now; what is served already stays as it is.

        If one of its versions does not load, none of the new ones is taken, and what was served
        before goes on. A process that died is waited for, which is being started again.

        Raises:
            Refused: it does not load.
        """
        model = self._models.setdefault(name, Model())
        async with model.turn:
            folder = self._root / name
            try:
                config = configuration.read(folder)
            except BadModel as error:
                self._failed(name, model, str(error))
                raise internal(
                    f"failed to load '{name}', failed to poll from model repository: {error}"
                ) from None
            try:
                wanted = configuration.versions(folder, config)
                failures = await self._bring_up(model, folder, config, wanted)
            except (BadModel, OSError) as error:
                self._failed(name, model, str(error))
                raise invalid(f"load failed for model '{name}': {error}\n") from None
            model.reason = ""
            if failures:
                told = "".join(
                    f"version {version} is at UNAVAILABLE state: {reason};\n"
                    for version, reason in failures.items()
                )
                self._say(f"model {name} does not load: {told.strip()}")
                raise invalid(f"load failed for model '{name}': {told}")
            self._say(f"model {name} is loaded: {', '.join(map(str, wanted))}")

    def _failed(self, name: str, model: Model, reason: str) -> None:
        model.reason = reason
        self._say(f"model {name} does not load: {reason}")

    async def _bring_up(
        self, model: Model, folder: Path, config: Any, wanted: list[int]
    ) -> dict[int, str]:
        """Load what is new of the wanted versions, and let go of the others.

        Returns:
            Why versions do not load; then nothing has changed but their states.
        """
        new: dict[int, Loaded] = {}
        stay: list[Served] = []
        for version in wanted:
            files = scan(folder).get(str(version), frozenset())
            there = model.versions.get(version)
            if there is not None and (there.written, there.files) == (config, files):
                stay.append(there.served)
            else:
                served = self._served(folder, config, version)
                new[version] = Loaded(served, config, files)
                if there is None:
                    model.states[version] = (LOADING, "")
        starts = [one.served.start() for one in new.values()]
        found = await asyncio.gather(*starts, return_exceptions=True)
        failures = {}
        for version, error in zip(new, found, strict=True):
            if isinstance(error, LoadFailed):
                failures[version] = str(error)
            elif error is not None:
                raise error
        if failures:
            for version, one in new.items():
                if version not in failures:
                    self._let_go(one.served)
                if version not in model.versions:
                    model.states[version] = (UNAVAILABLE, failures.get(version, "unloaded"))
            return failures
        for version in {*model.versions, *new}:
            if version in new or version not in wanted:
                self._replace(model, version, new.get(version))
        for served in stay:
            try:
                await served.wait_back()
            except LoadFailed as error:
                failures[served.version] = str(error)
        return failures

    def _served(self, folder: Path, config: Any, version: int) -> Served:
        told = configuration.specification(config, folder / str(version))
        instances = [Instance(name, told) for name in configuration.instances(config)]
        return Served(config.name, version, instances, self._say)

    def _replace(self, model: Model, version: int, new: Loaded | None) -> None:
        old = model.versions.pop(version, None)
        model.states.pop(version, None)
        if new is not None:
            model.versions[version] = new
        if old is not None:
            if new is None:
                model.states[version] = (UNLOADING, "")
            self._let_go(old.served, model)

    def _let_go(self, served: Served, model: Model | None = None) -> None:
        """Let a version finish what it has accepted, and end."""

        async def leave() -> None:
            await served.close()
            if model is not None and model.states.get(served.version) == (UNLOADING, ""):
                model.states[served.version] = (UNAVAILABLE, "unloaded")

        task = asyncio.create_task(leave())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def unload(self, name: str) -> None:
        """Serve nothing of a model any more; what was accepted is finished."""
        model = self._models.get(name)
        if model is None:
            return
        async with model.turn:
            model.reason = ""
            for version in [*model.versions]:
                self._replace(model, version, None)
            self._say(f"model {name} is unloaded")

    async def close(self, patience: float) -> None:
        """Finish what was accepted, within so many seconds, and end every process."""
        every = [loaded.served for _, loaded in self._loaded()]
        closes = [asyncio.create_task(one.close()) for one in every]
        if closes or self._leaving:
            await asyncio.wait([*closes, *self._leaving], timeout=patience)
        for task in (*closes, *self._leaving):
            task.cancel()
        await asyncio.gather(*closes, *self._leaving, return_exceptions=True)
        await asyncio.gather(*(one.kill() for one in every))

    # --- what is asked of them --------------------------------------------------------------------

    def find(self, name: str, version: str) -> Served:
        """The version of a model that answers.

        Args:
            name: of the model.
            version: its number; "" for the latest that is there.

        Raises:
            Refused: there is none, with Triton's word for why.
        """
        number = _number(version)
        model = self._models.get(name)
        unknown = f"Request for unknown model: '{name}'"
        if model is None or not (model.versions or model.states or (self._root / name).is_dir()):
            raise not_found(f"{unknown} is not found")
        if number is None:
            ready = [one for one, loaded in model.versions.items() if loaded.served.ready]
            if not ready:
                if model.versions:  # a process died, and is being started again
                    model.versions[max(model.versions)].served.require_ready()
                raise not_found(f"{unknown} has no available versions")
            return model.versions[max(ready)].served
        if number in model.versions:
            served = model.versions[number].served
            served.require_ready()
            return served
        if number in model.states:
            raise unavailable(f"{unknown} version {number} is not at ready state")
        raise not_found(f"{unknown} version {number} is not found")

    def is_ready(self, name: str, version: str) -> bool:
        """Whether a request would be answered.

        Raises:
            Refused: the version is no number.
        """
        _number(version)
        try:
            self.find(name, version)
        except Refused:
            return False
        return True

    def ready_of(self, name: str) -> list[str]:
        """The versions of a model that are ready, in order."""
        model = self._models.get(name, Model())
        return [str(number) for number, one in sorted(model.versions.items()) if one.served.ready]

    def index(self) -> list[Entry]:
        """What is in the repository, and what became of it, by name and version."""
        entries = []
        for name in sorted({*self._models, *scan(self._root)}):
            model = self._models.get(name)
            if model is None:
                entries.append(Entry(name, "", "", ""))
                continue
            there = (self._root / name).is_dir()
            found = [
                Entry(name, str(number), READY, "")
                if one.served.ready
                else Entry(name, str(number), UNAVAILABLE, one.served.reason or "its process died")
                for number, one in model.versions.items()
            ]
            found += [
                Entry(name, str(number), state, reason)
                for number, (state, reason) in model.states.items()
                if there
            ]
            if model.reason and there:
                found.append(Entry(name, "", UNAVAILABLE, model.reason))
            entries += sorted(found, key=lambda one: int(one.version or 0))
        return entries

    def statistics(self, name: str, version: str) -> list[Statistics]:
        """Of the served versions that were asked for: of all models, of one, or one of them.

        Raises:
            Refused: there is none.
        """
        number = _number(version)
        if not name:
            return [loaded.served.statistics for _, loaded in self._loaded()]
        model = self._models.get(name)
        if model is None or not model.versions:
            raise invalid(f"requested model '{name}' is not available")
        if number is not None and number not in model.versions:
            raise invalid(f"requested model version is not available for model '{name}'")
        return [
            loaded.served.statistics
            for one, loaded in sorted(model.versions.items())
            if number in {None, one}
        ]

    def _loaded(self) -> Iterator[tuple[str, Loaded]]:
        for name, model in sorted(self._models.items()):
            for _, loaded in sorted(model.versions.items()):
                yield name, loaded


def _number(version: str) -> int | None:
    """A version's number, None for the latest.

    Raises:
        Refused: it is none.
    """
    if not version:
        return None
    try:
        number = int(version)
    except ValueError:
        raise invalid(
            f"failed to get model version from specified version string '{version}' (details: "
            "stol), version should be an integral value > 0"
        ) from None
    if number <= 0:
        raise invalid(
            f"invalid model version specified '{version}' , version should be an integral value > 0"
        )
    return number
