"""Unclaimed: messages in the app's stream under subjects that no stage or type of this code has.

A type that was renamed leaves them behind: its subject is made of its name, unless it is given one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mqinfer import plan
from mqinfer.endpoint import BULK
from mqinfer.errors import ConfigurationError
from mqinfer.ports import ConsumerSpec
from mqinfer.rowpacks.which import TOKEN, pack_subject
from mqinfer.worker.survey import filters_of

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.operate.check import Report
    from mqinfer.streams import Streams

_MOST = 5  # notes
_ADVICE = (
    'a type that was renamed keeps its subject (class {name}(Message, subject="{subject}")); one '
    "that is gone stays beside the new ones, with its stage, until these are handled "
    "(docs/changing-types.md)"
)
_KEYED = "let the type have its key= until these are handled (docs/changing-types.md)"


@dataclass(slots=True)
class _Group:
    """Messages of one subject, or of those that differ in their keys."""

    messages: int = 0
    subjects: list[str] = field(default_factory=list)

    def filter(self, app: App) -> str:
        """The subject, or what all of them match."""
        if len(self.subjects) == 1:
            return self.subjects[0]
        return f"{_first(app, self.subjects[0])}.>"


async def check_unclaimed(app: App, streams: Streams, report: Report) -> None:
    """Whether messages lie in the app's stream that no worker of this code would handle.

    What a stage's consumer has left of them is a problem: a worker of this code gives the consumer
    other subjects. Of the rest nobody knows whether it was handled: that is a note.

    Args:
        app: whose.
        streams: where they lie.
        report: gets what is found.

    Raises:
        Unavailable: NATS does not answer.
        PermissionDenied: these credentials may not ask.
    """
    try:
        stages = {
            spec.name: task.reads
            for task in plan.tasks(app)
            for spec in plan.consumer_specs(app, task)
            if spec.stream == app.name
        }
    except ConfigurationError:
        return  # reported by `check_wiring`
    claimed = frozenset(_claimed(app))
    told: set[str] = set()
    for info in await streams.consumers(app.name):
        reads = stages.get(info["name"])
        left = tuple(one for one in filters_of(info["config"]) if one not in claimed)
        if reads is None or not left:
            continue
        waiting = await _waiting(app, info, left, streams)
        if waiting:
            told.update(left)
            bare = left[0].removeprefix(f"{app.name}.").removesuffix(".>")
            keyed = bare == reads.__mqinfer__.subject
            report.found(
                f"stage {info['name']}",
                f"{waiting:,} messages of {left[0]} wait for it, and this code reads "
                f"{app.subject(reads)}: none of its workers would handle them; "
                + (_KEYED if keyed else _ADVICE.format(name=reads.__name__, subject=bare)),
            )
    groups = _groups(app, await streams.subjects(app.name), claimed | told)
    for group in sorted(groups, key=lambda group: -group.messages)[:_MOST]:
        subject = group.filter(app)
        first = await streams.message(app.name, 1, subject=subject)
        since = f" since {first.time:%Y-%m-%d %H:%M:%S} UTC" if first else ""
        report.notes.append(
            f"app {app.name}: its stream holds {group.messages:,} messages of {subject}{since}, "
            "handled or not, which no stage or type of this code has; "
            + _ADVICE.format(name="...", subject=_first(app, subject).rpartition(".")[2])
        )
    if len(groups) > _MOST:
        report.notes.append(f"app {app.name}: and so of {len(groups) - _MOST:,} more subjects")


def _claimed(app: App) -> Iterator[str]:
    """Every filter of what this code may read or write; of replay runs, which have an end."""
    yield f"{app.name}.run.>"
    for kind in app.messages:
        yield from app.filters(kind)
        yield from app.filters(kind, bulk=True)
        yield pack_subject(app, kind)


async def _waiting(app: App, info: Mapping[str, Any], left: Sequence[str], streams: Streams) -> int:
    """How many of these subjects a consumer has not done."""
    unacknowledged = int(info.get("num_ack_pending", 0))
    if set(left) == set(filters_of(info["config"])):
        return int(info.get("num_pending", 0)) + unacknowledged
    done = info["ack_floor"] if unacknowledged else info["delivered"]
    first = int(done["stream_seq"]) + 1
    return await streams.pending(
        ConsumerSpec(info["name"], app.name, tuple(left), start_sequence=first)
    )


def _groups(app: App, counts: Mapping[str, int], claimed: Iterable[str]) -> list[_Group]:
    exact = frozenset(claimed)
    under = tuple(one.removesuffix(">") for one in exact if one.endswith(".>"))
    found: dict[str, _Group] = {}
    for subject, count in counts.items():
        if subject not in exact and not subject.startswith(under):
            group = found.setdefault(_first(app, subject), _Group())
            group.messages += count
            group.subjects.append(subject)
    return list(found.values())


def _first(app: App, subject: str) -> str:
    """A subject up to the first token of what a type calls it."""
    own = f"{app.name}."
    rest = subject.removeprefix(own)
    for before in (BULK, f"{TOKEN}."):
        if rest.startswith(before):
            own, rest = own + before, rest.removeprefix(before)
    return own + rest.partition(".")[0]
