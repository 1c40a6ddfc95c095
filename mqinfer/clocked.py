"""Clocked: how an app declares the stages that a clock feeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

from mqinfer import schedule
from mqinfer.backoff import Backoff

if TYPE_CHECKING:
    from mqinfer.lifespan import Lifespan
    from mqinfer.message import Message
    from mqinfer.model import Model
    from mqinfer.schedule import CatchUp, Schedule

Handler = TypeVar("Handler", bound=Callable[..., Any])


class StageKeywords(TypedDict, total=False):
    """Keywords of `App.stage` that a stage which a clock feeds takes as well."""

    name: str | None
    models: Sequence[Model]
    lifespan: Lifespan | None
    early: bool
    later: type[Message] | Sequence[type[Message]]
    max_in_flight: int
    concurrency: int | None
    timeout: float | str
    attempts: int
    snooze_for: float | str
    backoff: Backoff
    ack_wait: float | str
    max_downstream: int | None


class Clocked:
    """The part of `App` that declares schedules."""

    def every(
        self,
        period: float | str,
        *,
        at: str | None = None,
        zone: str | None = None,
        catch_up: CatchUp = "all",
        tolerance: float | str = 60.0,
        **stage: Unpack[StageKeywords],
    ) -> Callable[[Handler], Handler]:
        """Declare a stage that takes a `Tick` at equal distances: one for the whole app.

            @app.every("1d", at="06:00", zone="Europe/Berlin", catch_up="last")
            async def report(tick: Tick) -> Report: ...

        Args:
            period: seconds or text ("15m"), counted from 1970 in UTC; or whole days ("1d", "7d").
            at: of whole days, the local time; None is midnight.
            zone: of `at`, such as "Europe/Berlin"; None is UTC.
            catch_up: which ticks are handled that are late, since workers or servers were down or a
                handling failed: "all"; "last", those after which none is due yet; or "none" that is
                later than `tolerance`.
            tolerance: seconds or text.
            stage: keywords of `App.stage`. By default a process handles one tick at a time.

        Raises:
            WiringError: it is no schedule.
        """
        made = schedule.every(period, at=at, zone=zone, catch_up=catch_up, tolerance=tolerance)
        return self._clocked(made, stage)

    def cron(
        self,
        fields: str,
        *,
        zone: str | None = None,
        catch_up: CatchUp = "all",
        tolerance: float | str = 60.0,
        **stage: Unpack[StageKeywords],
    ) -> Callable[[Handler], Handler]:
        """Declare a stage that takes a `Tick` at the times of five fields of cron.

            @app.cron("0 6 * * mon-fri", zone="Europe/Berlin")
            async def report(tick: Tick) -> Report: ...

        Args:
            fields: minute, hour, day of month, month, day of week; or "@hourly", "@daily", ...
            zone: such as "Europe/Berlin"; None is UTC.
            catch_up: as in `every`.
            tolerance: seconds or text.
            stage: keywords of `App.stage`. By default a process handles one tick at a time.

        Raises:
            WiringError: it is no schedule.
        """
        made = schedule.cron(fields, zone=zone, catch_up=catch_up, tolerance=tolerance)
        return self._clocked(made, stage)

    def _clocked(self, clock: Schedule, stage: StageKeywords) -> Callable[[Handler], Handler]:
        raise NotImplementedError
