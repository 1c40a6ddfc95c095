"""Canaried: which version a message is answered by while a model has a canary, and how that ends.

Who is chosen follows from the id of the message's first input alone (`mqinfer.choice`). What
becomes of the messages of either version is counted, for whoever takes a canary back that fails. As
shares are of first inputs, so are the counts: of many parts of one bad photograph that fail, one
counts.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from mqinfer.choice import chosen, root_of
from mqinfer.errors import Unavailable

if TYPE_CHECKING:
    from mqinfer.context import Context
    from mqinfer.inference.aliases import Canary
    from mqinfer.model import Target

# Behind the name of an alias: what its canary's queue follows; no alias can be called so.
CANARY: Final = "=canary"
# So many first inputs of each version are told apart; one that comes later still counts again.
_ROOTS: Final = 10_000
_WHY: Final = 200  # characters of an error


class Tried(msgspec.Struct, omit_defaults=True, kw_only=True):
    """How messages ended while a canary stood, each by its first input.

    Attributes:
        version: of the canary.
        began: when it was let in.
        asked: of its share.
        failed: those of them that failed.
        others: that the alias's own version was asked for.
        others_failed: those of them that failed.
        why: the last of its share did.
    """

    version: str
    began: datetime.datetime
    asked: int = 0
    failed: int = 0
    others: int = 0
    others_failed: int = 0
    why: str = ""

    def of(self, canary: Canary | Tried) -> bool:
        """Whether this canary was counted, and not one before it."""
        return (self.version, self.began) == (canary.version, canary.began)

    def plus(self, other: Tried, sign: int = 1) -> Tried:
        """The sum, or with -1 the difference; of one canary."""
        return msgspec.structs.replace(
            self,
            asked=self.asked + sign * other.asked,
            failed=self.failed + sign * other.failed,
            others=self.others + sign * other.others,
            others_failed=self.others_failed + sign * other.others_failed,
            why=other.why or self.why,
        )


class Place(NamedTuple):
    """Whose messages are counted together."""

    stage: str
    model: str
    alias: str | None


class _Count:
    """The counts of one place."""

    def __init__(self, canary: Canary):
        self.tried = Tried(version=canary.version, began=canary.began)
        # Of the canary's share, of the others: first inputs, and whether they have failed.
        self._roots: tuple[dict[str, bool], dict[str, bool]] = ({}, {})

    def ended(self, root: str, why: str, *, of_share: bool) -> None:
        tried, roots = self.tried, self._roots[not of_share]
        before = roots.pop(root, None)
        asked, failed = before is None, bool(why) and not before
        roots[root] = bool(why or before)
        if len(roots) > _ROOTS:
            del roots[next(iter(roots))]
        if of_share:
            tried.asked += asked
            tried.failed += failed
            tried.why = why or tried.why
        else:
            tried.others += asked
            tried.others_failed += failed


class Trial:
    """Which versions one message was asked of; the parts of a batch share one.

    Args:
        canaried: that counts how it ends.
        stage: of the message.
    """

    __slots__ = ("_canaried", "_stage", "asked")

    def __init__(self, canaried: Canaried, stage: str):
        self.asked: dict[tuple[str, str | None], tuple[Canary, bool]] = {}
        self._canaried = canaried
        self._stage = stage

    def ended(self, context: Context, error: BaseException | None) -> None:
        """A message was answered, or failed; once for each handling. See `Job.tell`."""
        if context.attempt != 1:
            return  # a message counts as it ended when it was new, and not as often as it fails
        if isinstance(error, Unavailable) or getattr(error, "after", None) is not None:
            return  # an outage, or a snooze, is the fault of no version
        root = root_of(context.headers, context.id)
        why = "" if error is None else f"{type(error).__name__}: {error}"[:_WHY]
        for at, (canary, of_share) in self.asked.items():
            now = self._canaried.canaries.get(at)
            if now is not None and (now.version, now.began) == (canary.version, canary.began):
                count = self._canaried.count(Place(self._stage, *at), now)
                count.ended(root, why, of_share=of_share)


class Canaried:
    """Chooses for messages between the canaries of a process and what stands beside them.

    Args:
        canaries: by model and alias; always the same dictionary.
    """

    def __init__(self, canaries: Mapping[tuple[str, str | None], Canary]):
        self.canaries = canaries
        self._counts: dict[Place, _Count] = {}

    def of_share(self, target: Target, context: Context | None) -> bool | None:
        """Whether the canary of a call's target is to answer its message; None where it has none.

        A replay asks none, and outside of a handler there is nothing to choose by.
        """
        canary = self.canaries.get((target.name, target.alias))
        if canary is None or context is None or context.run is not None:
            return None
        return chosen(root_of(context.headers, context.id), canary.share)

    def asked(self, target: Target, context: Context, *, of_share: bool) -> None:
        """The canary of a target is asked for a message, or the version that it stands beside."""
        if context.trial is None:
            context.trial = Trial(self, context.stage)
        at = target.name, target.alias
        context.trial.asked[at] = (self.canaries[at], of_share)

    def sides(self, context: Context) -> tuple[bool, ...]:
        """Of which canaries' shares a message is: where that differs, none goes with another."""
        if not self.canaries or context.run is not None:
            return ()
        root = root_of(context.headers, context.id)
        return tuple(chosen(root, canary.share) for canary in self.canaries.values())

    # --- what was counted -----------------------------------------------------------------------

    def count(self, place: Place, canary: Canary) -> _Count:
        """What is counted of a place; anew, where it is another canary."""
        count = self._counts.get(place)
        if count is None or not count.tried.of(canary):
            count = self._counts[place] = _Count(canary)
        return count

    def counted(self, model: str, alias: str, canary: Canary) -> dict[Place, Tried]:
        """What was counted here of a canary, by stage, and is not `told` yet; copies."""
        return {
            place: msgspec.structs.replace(count.tried)
            for place, count in self._counts.items()
            if (place.model, place.alias) == (model, alias) and count.tried.of(canary)
        }

    def told(self, place: Place, tried: Tried) -> None:
        """These counts were added to those of all workers."""
        count = self._counts.get(place)
        if count is not None and count.tried.of(tried):
            count.tried = count.tried.plus(tried, -1)
