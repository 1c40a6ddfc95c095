"""Collisions: two types of an app with one subject or table, and subjects that overlap. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mqinfer.errors import WiringError
from mqinfer.message import Message
from mqinfer.stage import Stage


def collisions(stages: Mapping[str, Stage]) -> Iterator[WiringError]:
    """Two types with one subject or table, and subjects that contain one another."""
    kinds: dict[type[Message], str] = {}
    for stage in stages.values():
        for kind in (stage.reads, *stage.sends):
            kinds.setdefault(kind, stage.name)
    seen: list[tuple[type[Message], str]] = []
    for kind, stage_name in kinds.items():
        info = kind.__mqinfer__
        if info.subject.split(".")[0] == "run":
            yield WiringError(
                f"stage {stage_name}: {kind.__name__} has subject {info.subject!r}; "
                "'run' belongs to replays"
            )
        writers = [stage.name for stage in stages.values() if kind in stage.sends]
        if writers and not info.foreign_ids:
            yield WiringError(
                f"stage {writers[0]}: writes {kind.__name__}, which has foreign_ids=False: the ids "
                "of its outputs would not count; leave that out, or write another type"
            )
        for other, other_stage in seen:
            theirs = other.__mqinfer__
            if info.table is not None and info.table == theirs.table:
                yield WiringError(
                    f"stage {stage_name}: {kind.__name__} and {other.__name__} (stage "
                    f"{other_stage}) both have table {info.table!r}; rename one with table="
                )
            elif info.subject == theirs.subject:
                yield WiringError(
                    f"stage {stage_name}: {kind.__name__} and {other.__name__} (stage "
                    f"{other_stage}) both have subject {info.subject!r}; rename one with subject="
                )
            elif (theirs.key and info.subject.startswith(theirs.subject + ".")) or (
                info.key and theirs.subject.startswith(info.subject + ".")
            ):
                yield WiringError(
                    f"stage {stage_name}: the subjects {info.subject!r} and {theirs.subject!r} "
                    "overlap, since a key is a further token; rename one with subject="
                )
        seen.append((kind, stage_name))
