"""Processes: what is to run, whatever runs it. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from mqinfer.deploy.deployment import Deployment, Held, Served, Workers
from mqinfer.settings import Settings

if TYPE_CHECKING:
    from mqinfer.deploy.declaration import Declaration

SPARE = 15  # seconds that a process has beyond its grace before it is killed
METRICS_PORT = 9000


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a target is rendered from.

    Attributes:
        name: of the app, as `module:attribute`.
        deployment: what the file says.
        declared: what the code declares.
    """

    name: str
    deployment: Deployment
    declared: Declaration

    @property
    def app(self) -> str:
        """The app's name, for names of objects: small letters, digits and -."""
        return self.declared.app.lower().replace("_", "-")

    @property
    def grace(self) -> int:
        """Seconds after which a process that was told to stop is killed."""
        found = self.deployment.settings.get("grace")
        return round(Settings.load({}, grace=found).grace) + SPARE

    def environ(self) -> dict[str, str]:
        """Settings of every process, but for the secret ones."""
        found = {variable(name): value for name, value in self.deployment.settings.items()}
        if self.deployment.triton is not None and "triton_url" not in self.deployment.settings:
            found[variable("triton_url")] = f"{self.app}-triton:8001"
        return found

    def secrets(self) -> list[str]:
        """Variables of the secret settings."""
        return [variable(name) for name in self.deployment.secrets]

    def worker(self, group: Workers) -> list[str]:
        """The command of one worker process of a group."""
        every = set(group.stages) == set(self.declared.stages)
        stages = [] if every else [f"--stage={stage}" for stage in group.stages]
        found = ["worker", self.name, *stages]
        if group.max_messages is not None:
            found.append(f"--max-messages={group.max_messages}")
        if group.max_memory is not None:
            found.append(f"--max-memory={group.max_memory}")
        return found

    def index(self, name: str, held: Held, part: int) -> list[str]:
        """The command of one process that holds a part of an index's shards, from 1."""
        found = ["index", self.name, "serve", name, f"--part={part}/{held.parts}"]
        return [*found, f"--snapshot-every={held.snapshot_every:g}s"]

    def gateway(self, served: Served, host: str) -> list[str]:
        """The command of a gateway."""
        listen = [f"--http={served.port}", f"--http-host={host}"]
        return ["gateway", self.name, *listen, *served.options]

    def console(self, served: Served, host: str) -> list[str]:
        """The command of a console."""
        return ["console", self.name, f"--http={host}:{served.port}", *served.options]

    def revision(self, group: Workers | None = None) -> str:
        """What a process depends on beside its command: another one makes a new process."""
        stages = (
            self.declared.stages
            if group is None
            else {name: self.declared.stages.get(name) for name in group.stages}
        )
        facts = (self.deployment.image, self.environ(), sorted(self.secrets()), stages)
        told = (*facts, self.declared.endpoints) if group is None else facts
        return _hashed(told)

    def index_revision(self, name: str) -> str:
        """The same of a process that holds shards; generations it follows by itself."""
        facts = self.declared.indexes[name]
        told = (facts.models, facts.key, facts.vector, facts.filters)
        return _hashed((self.deployment.image, self.environ(), sorted(self.secrets()), told))


def _hashed(facts: object) -> str:
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()[:12]


def variable(name: str) -> str:
    """The variable of a setting."""
    return f"MQINFER_{name.upper()}"
