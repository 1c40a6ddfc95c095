"""The account: what was expected, what came, what was absorbed; pure, but for the printing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .pipeline import Expected

EXAMPLES = 10


@dataclass
class Account:
    """What became of the inputs of one run.

    Attributes:
        title: of the run.
        seed: that the faults were drawn from.
        inputs: that were published.
        rows: that the view shows.
        dead: letters in the dead-letter stream.
        lost: rows and dead letters that are missing.
        duplicated: that are there more than once.
        unexpected: that should not be there.
        innocent: dead letters among these: messages that died of what is not their fault.
        redeliveries: deliveries of a message that had been delivered before.
        duplicate_publishes: that the stream recognized by their id.
        duplicate_rows: that were inserted more than once, and that the view shows once.
        replaced: workers that a deployment replaced, by the version of the code.
        befell: messages that failed at first, asked for time or were slow, by what it was.
        faults: by kind.
        missed: faults that did not come about (the point was not passed in time).
        exits: exit codes of processes; 0 is an orderly stop, -9 SIGKILL.
        unclean: slots that did not end with 0 at the end.
        seconds: of the run.
        examples: a few of what is wrong.
    """

    title: str
    seed: int
    inputs: int
    rows: int = 0
    dead: int = 0
    lost: int = 0
    duplicated: int = 0
    unexpected: int = 0
    innocent: int = 0
    redeliveries: int = 0
    duplicate_publishes: int = 0
    duplicate_rows: int = 0
    replaced: dict[str, int] = field(default_factory=dict)
    befell: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    missed: dict[str, int] = field(default_factory=dict)
    exits: dict[str, int] = field(default_factory=dict)
    unclean: list[str] = field(default_factory=list)
    seconds: float = 0.0
    examples: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.duplicated or self.unexpected or self.unclean)

    def settle(
        self,
        expected: Expected,
        rows: Iterable[tuple[Any, ...]],
        dead: Iterable[Mapping[str, str]],
    ) -> None:
        """Compare what came with what was expected.

        Args:
            expected: of the pipeline.
            rows: of the views, as they are expected.
            dead: headers of the dead letters.
        """
        have = Counter(rows)
        letters = Counter((d["Mq-Dead-Stage"], d["Mq-Dead-Kind"], d.get("Mq-Id", "")) for d in dead)
        self.rows, self.dead = sum(have.values()), sum(letters.values())
        for wanted, found in ((expected.rows, have), (expected.dead, letters)):
            missing = [item for item in wanted if item not in found]  # type: ignore[operator]
            twice = [(item, count) for item, count in found.items() if count > 1]
            odd = [item for item in found if item not in wanted]  # type: ignore[operator]
            self.lost += len(missing)
            self.duplicated += sum(count - 1 for _, count in twice)
            self.unexpected += len(odd)
            if found is letters:
                self.innocent += len(odd)
            for name, items in (("lost", missing), ("twice", twice), ("unexpected", odd)):
                self.examples += [f"{name}: {item}" for item in items[:EXAMPLES]]

    def json(self) -> str:
        """As JSON."""
        return json.dumps({**asdict(self), "clean": self.clean}, indent=2)

    def table(self) -> str:
        """For a person."""
        lines = [
            ("run", self.title),
            ("seed", self.seed),
            ("inputs", f"{self.inputs:,}"),
            ("rows in ClickHouse", f"{self.rows:,}"),
            ("dead letters", f"{self.dead:,}"),
            ("faults", f"{sum(self.faults.values())}"),
            *((f"  {kind}", count) for kind, count in sorted(self.faults.items())),
            *((f"  missed: {kind}", count) for kind, count in sorted(self.missed.items())),
            ("workers replaced by deployments", f"{sum(self.replaced.values())}"),
            *((f"  {version}", count) for version, count in sorted(self.replaced.items())),
            ("messages that met something", f"{sum(self.befell.values()):,}"),
            *((f"  {way}", f"{count:,}") for way, count in sorted(self.befell.items())),
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("unexpected", self.unexpected),
            ("  dead letters among them", self.innocent),
            ("redeliveries", f"{self.redeliveries:,}"),
            ("duplicate publishes absorbed", f"{self.duplicate_publishes:,}"),
            ("duplicate rows absorbed", f"{self.duplicate_rows:,}"),
            ("exit codes", ", ".join(f"{c}: {n}" for c, n in sorted(self.exits.items()))),
            ("not stopped in order", ", ".join(self.unclean) or "none"),
            ("seconds", f"{self.seconds:.0f}"),
        ]
        width = max(len(name) for name, _ in lines) + 2
        text = [f"{name:{width}}{value}" for name, value in lines]
        return "\n".join([*text, *self.examples])
