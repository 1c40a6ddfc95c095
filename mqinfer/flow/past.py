"""Past: what is known of a message's earlier deliveries; see `ledger`."""

from __future__ import annotations

import msgspec


class Past(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a message's earlier deliveries.

    Attributes:
        failures: attempts that were spent.
        tries: deliveries that a handler began with, whatever came of them.
        explained: up to this delivery all have been accounted for.
        snoozed: when the first of its snoozes in a row began, in seconds since the epoch; 0: none.
        until: it is to wait so long, in seconds since the epoch, where a worker sees to that.
        unexplained: deliveries that ended without a word; not kept, but found when it is read.
    """

    failures: int = 0
    tries: int = 0
    explained: int = 0
    snoozed: float = 0.0
    until: float = 0.0
    unexplained: int = 0

    @property
    def attempt(self) -> int:
        """1 for a message that was never begun with, as far as anybody can know."""
        return 1 + self.tries + self.unexplained


NOTHING = Past()
