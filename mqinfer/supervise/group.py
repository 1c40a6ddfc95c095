"""Group: processes that run one command. Inert."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mqinfer.supervise.scaling import Bounds


@dataclass(frozen=True, slots=True)
class Group:
    """Processes that run one command.

    Attributes:
        name: of the group, for the log.
        arguments: of `python -m mqinfer`.
        bounds: how many.
        http: port of the first one; the others take the following ones.
        environ: added to this process's environment.
        stages: stages and sinks that they run.
        consumers: streams and consumers whose messages they handle, by which the group scales.
        alone: a new one cannot be beside the one that it takes the place of: both want one port.
        holds: its processes hold shards of an index, and say themselves when they have read them.
        revision: what else makes another of it: they are replaced then.
    """

    name: str
    arguments: tuple[str, ...]
    bounds: Bounds
    http: int | None = None
    environ: tuple[tuple[str, str], ...] = ()
    stages: tuple[str, ...] = ()
    consumers: tuple[tuple[str, str], ...] = ()
    alone: bool = False
    holds: bool = False
    revision: str = ""

    def same_process(self, other: Group) -> bool:
        """Whether a process of the other one is one of this."""
        return replace(self, bounds=other.bounds, consumers=other.consumers) == other
