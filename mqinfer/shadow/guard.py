"""Guard: a canary goes back by itself when its alarm rings, when it fails, or does not answer.

That it fails is told by how its messages end (`failing`), of which every worker knows its own. The
alarm is the monitor's: the counts of what the canary has said since it was let in, held against
the reference of its version (what its shadow or its replay said), or, where it has none, against
that of the version that it stands beside. Workers that write rows look, while there is a canary.
That several see the same makes no difference, for it is taken back once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import structlog

from mqinfer.errors import Unavailable
from mqinfer.inference.aliases import Alias, Canary, followed
from mqinfer.monitor.follow import follow
from mqinfer.monitor.looking import Monitor
from mqinfer.monitor.watched import watched
from mqinfer.shadow.failing import Failing

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.bucket import Bucket
    from mqinfer.inference.inference import Inference
    from mqinfer.ports import Database
    from mqinfer.shadow.canary import Canaries

log = structlog.get_logger("mqinfer.shadow")

EVERY: Final = 2.0  # seconds between looks at whether it fails, and answers
ALARM_EVERY: Final = 10.0  # seconds between looks at its alarm
AWAY: Final = 10.0  # seconds for which its version may not answer, while others do


class Guard:
    """Looks after the canaries of an app.

    Args:
        canaries: of the app.
        db: its tables; None where this process has none.
        inference: of this process, which knows what answers; None where it asks no model.
        bucket: of the app's state, where workers count how messages end; None: nobody does.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        canaries: Canaries,
        db: Database | None,
        inference: Inference | None,
        bucket: Bucket | None = None,
        clock: Callable[[], float] = time.time,
    ):
        self._canaries = canaries
        self._app: App = canaries.app
        self._inference = inference
        self._failing = (
            None if bucket is None or inference is None else Failing(bucket, inference.canaried)
        )
        self._clock = clock
        self._counts = db is not None and bool(watched(self._app)[0])
        self._monitor = Monitor(self._app, db) if db is not None else None
        self._ensured = False
        self._trouble = ""

    async def keep(self) -> None:
        """Look, again and again, until it is cancelled. What goes wrong costs a line in the log."""
        alarm = 0.0
        while True:
            await asyncio.sleep(EVERY * random.uniform(0.8, 1.2))
            try:
                due = time.monotonic() >= alarm
                if due or self._any():
                    await self.look(alarm=due)
                if due:
                    alarm = time.monotonic() + ALARM_EVERY
            except Unavailable as error:
                log.debug("canaries are not looked after now", reason=str(error))
            except Exception as error:  # noqa: BLE001 - the worker goes on, whatever this meets
                if repr(error) != self._trouble:
                    log.warning("canaries are not looked after now", reason=repr(error))
                self._trouble = repr(error)

    async def look(self, *, alarm: bool = True) -> None:
        """Look once, and take back what is to go back.

        Args:
            alarm: whether to look at the alarm, too, which asks the database.

        Raises:
            MqinferError: a server does not answer, or refuses.
        """
        for model, alias in followed(self._app):
            found = await self._canaries.aliases.find(model, alias)
            if found is None or found.canary is None:
                continue
            why = self._away(found)
            if not why and self._failing is not None:
                why = await self._failing.look(model, alias, found.canary)
            if not why and alarm:
                why = await self._alarm(found, found.canary)
            if why and await self._canaries.take_back(model, alias, why, seen=found.canary):
                log.error(
                    "a canary went back",
                    model=model,
                    alias=alias,
                    version=found.canary.version,
                    reason=why,
                )

    def _any(self) -> bool:
        """Whether this process asks canaries now."""
        return self._inference is not None and bool(self._inference.canaried.canaries)

    def _away(self, alias: Alias) -> str:
        if self._inference is None:
            return ""
        reason = self._inference.canary_away(alias.model, alias.alias, AWAY)
        return f"its version does not answer: {reason}" if reason else ""

    async def _alarm(self, alias: Alias, canary: Canary) -> str:
        monitor = self._monitor
        if monitor is None or not self._counts:
            return ""
        if not self._ensured:
            await monitor.ensure()
            self._ensured = True
        since, now = canary.began.timestamp(), self._clock()
        held = await monitor.references_of(alias.model, canary.version, alias.version)
        threshold = monitor.threshold(len(held))
        for series, accepted in held.items():
            steps = await monitor.steps(series, since, now)
            for episode in follow(series, accepted.reference, steps, threshold).episodes:
                if episode.lasts:
                    way = "rose" if episode.rising else "fell"
                    return (
                        f"{series}: {episode.key} {way} from {episode.before:.1%} to "
                        f"{episode.after:.1%} in {episode.rows:,} rows (reference: "
                        f"{accepted.source})"
                    )
        return ""
