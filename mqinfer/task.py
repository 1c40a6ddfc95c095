"""Task: one consumer that a worker runs, whatever kind of work it has. Inert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mqinfer.rowpacks.which import may_come_packed

if TYPE_CHECKING:
    from mqinfer.endpoint import Endpoint
    from mqinfer.join import Join
    from mqinfer.message import Message, Row
    from mqinfer.schedule import Schedule
    from mqinfer.stage import Limits, Stage, Start
    from mqinfer.statetype import State


@dataclass(frozen=True, slots=True)
class Task:
    """One consumer to run: a stage, or the sink of a table.

    Attributes:
        name: of the stage, or `sink-<table>`.
        reads: the type of its messages.
        limits: what bounds it.
        stage: None for a sink.
        row: the row type of a sink.
        dead: it stores the app's dead letters.
        tracker: it is the tracker of the app's joins.
        deadline: the join whose roots it looks at when their deadline is due.
        endpoint: whose requests it looks after.
        jobs: it drives the app's jobs.
    """

    name: str
    reads: type[Message]
    limits: Limits
    stage: Stage | None = None
    row: type[Row] | None = None
    dead: bool = False
    tracker: bool = False
    deadline: Join | None = None
    endpoint: Endpoint[Any] | None = None
    jobs: bool = False

    @property
    def declared(self) -> bool:
        """Whether it is a stage, a join or a table of the app's; the others look after those."""
        return not (self.dead or self.tracker or self.waits or self.jobs)

    @property
    def waits(self) -> bool:
        """Whether its messages wait for a deadline: one that has not come is nothing left to do."""
        return self.deadline is not None or self.endpoint is not None

    @property
    def ordered(self) -> bool:
        """Whether it handles messages in order by key, from partitions."""
        return self.stage is not None and self.reads.__mqinfer__.ordered

    @property
    def remembers(self) -> type[State] | None:
        """The type of its states, if it has any."""
        return self.stage.signature.state if self.stage else None

    @property
    def start(self) -> Start | None:
        """Where it begins when it never ran, if its declaration says so."""
        if self.deadline is not None:  # what came of older roots was not recorded
            return "new"
        return self.stage.start if self.stage else None

    @property
    def packs(self) -> bool:
        """Whether its messages may come packed, which a consumer of its own reads."""
        return self.row is not None and not self.dead and may_come_packed(self.row)

    @property
    def clock(self) -> Schedule | None:
        """When the clock feeds it; None where messages do."""
        return self.stage.clock if self.stage else None

    @property
    def writes(self) -> tuple[type[Message], ...]:
        """The types it may write."""
        return self.stage.writes if self.stage else ()
