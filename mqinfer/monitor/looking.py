"""Looking: how every series of an app stands, from the counts in ClickHouse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import structlog

from mqinfer.errors import ConfigurationError, MqinferError
from mqinfer.monitor import asking
from mqinfer.monitor.accuracy import Estimate
from mqinfer.monitor.advice import Advice, Facts, of_label
from mqinfer.monitor.checkpoints import Checkpoints
from mqinfer.monitor.counting import VIEW_SUFFIX
from mqinfer.monitor.detector import Alarm, Budget, backtest
from mqinfer.monitor.episode import Episode, Word
from mqinfer.monitor.follow import Saying, Series, heard, said
from mqinfer.monitor.happened import Happening, versions, why
from mqinfer.monitor.kept import Accepted, Kept
from mqinfer.monitor.places import ensure_counts
from mqinfer.monitor.reference import STEP, reference_of
from mqinfer.monitor.truth import Truths
from mqinfer.monitor.verdict import Verdict, verdict
from mqinfer.monitor.watched import Watched, watched
from mqinfer.tables.sql import quoted

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.ports import Database

log = structlog.get_logger("mqinfer.monitor")

PROPOSED_ROWS: Final = 5_000
PROPOSED_SECONDS: Final = 86_400
_CLOSED: Final = 60  # seconds after which a step is taken to have all of its rows


@dataclass(frozen=True, slots=True)
class Standing:
    """How a series stands.

    Attributes:
        series: which.
        what: it is: label, confidence, input or embedding.
        verdict: of the window.
        evidence: as a part of what is an alarm; None without a reference.
        reference: what it is held against.
        episodes: the newest last.
        proposed: whether there are enough rows, of a whole day, to be accepted as reference.
        advice: whether to train again; of labels.
        by_key: evidence of each key of the reference, as a part of what is an alarm.
        accuracy: of the window, counted or estimated; None where no truth is known.
    """

    series: Series
    what: str
    verdict: Verdict
    evidence: float | None = None
    reference: Accepted | None = None
    episodes: tuple[Episode, ...] = ()
    proposed: bool = False
    advice: Advice | None = None
    by_key: Mapping[str, float] = field(default_factory=dict)
    accuracy: Estimate | None = None

    def alarms(self, now: float) -> list[Episode]:
        """Episodes that stand."""
        return [one for one in self.episodes if one.stands(now)]


class Monitor:
    """What is known of the models of one app.

    Args:
        app: the app.
        db: its tables.
        budget: of false alarms.
        window: seconds that verdicts are about.
        target: the accuracy that is wanted; None: nobody said.
    """

    def __init__(
        self,
        app: App,
        db: Database,
        budget: Budget | None = None,
        window: float = 86_400,
        target: float | None = None,
    ):
        self._app = app
        self._db = db
        self._budget = budget or Budget()
        self._window = window
        self._target = target
        self._truths = Truths(db, app.name)
        self._kept = Kept(db, app.name)
        self._points = Checkpoints()

    async def ensure(self) -> None:
        """Make what counts, and what is kept, where it is not there.

        Raises:
            ConfigurationError: no field of the app is marked, or one is marked wrongly.
        """
        found, problems = watched(self._app)
        if problems:
            raise problems[0]
        if not found:
            raise ConfigurationError(
                f"app {self._app.name} has no rows with Label(), Confidence() or Input(): mark "
                "what is to be watched (docs/monitor.md)"
            )
        for one in found:
            await ensure_counts(self._db, one, self._app.name)
        await self._kept.ensure()
        await self._truths.ensure()

    async def look(self, now: float, happenings: Sequence[Happening] = ()) -> list[Standing]:
        """How every series stands that has rows in the window, or a reference.

        The first look goes through all steps since the references were accepted, and a later one
        through those since the last sealed hour.

        Args:
            now: seconds since the epoch.
            happenings: what happened, as far as rows do not tell it.
        """
        references = await self._kept.references()
        sayings = await self._kept.sayings()
        threshold = self._budget.threshold(max(1, len(references)))
        found = []
        for table in self._tables():
            own = {series: one for series, one in references.items() if series.table == table}
            found += await self._look(table, own, sayings, threshold, now, happenings)
        return sorted(found, key=lambda one: str(one.series))

    async def _look(
        self,
        table: str,
        references: Mapping[Series, Accepted],
        sayings: Sequence[Saying],
        threshold: float,
        now: float,
        happenings: Sequence[Happening],
    ) -> list[Standing]:
        made = min((one.made for one in references.values()), default=now)
        # Asked first: an hour that is sealed in between has another seal at the next look.
        seals = await asking.seals(self._db, table, made)
        after = min(
            (self._points.begin(one, threshold, seals) for one in references.values()), default=now
        )
        since = min(after, now - 2 * self._window, now - PROPOSED_SECONDS)
        counts = await asking.counted(self._db, table, since, now, window=self._window, after=after)
        accuracy = await self._truths.accuracy(self._watched(table), counts, now, self._window)
        found = []
        for series in {*counts, *references}:
            one = counts.get(series) or asking.Counted(self._what(series))
            accepted = references.get(series)
            if accepted is None:
                if one.window:
                    proposed = _whole(one, now)
                    told = verdict(one.window, None)
                    known = accuracy.get(series, [])
                    found.append(
                        Standing(
                            series,
                            one.what,
                            told,
                            proposed=proposed,
                            accuracy=known[-1] if known else None,
                        )
                    )
                continue
            closed = now - _CLOSED
            steps = [step for step in one.steps if step[0] * STEP < closed]
            state = self._points.followed(accepted, threshold, seals, steps, closed).following()
            episodes = heard(state.episodes, sayings, None, now)
            alarm = any(episode.lasts for episode in episodes)
            told = verdict(one.window, accepted.reference, alarm=alarm)
            known = accuracy.get(series, [])
            advice = None
            if one.what == "label":
                facts = Facts(alarm, known, self._target)
                changed: Mapping[str, int] = {}
                lasting = [episode for episode in episodes if episode.lasts]
                if lasting:
                    step = await self._why(accepted, lasting, happenings)
                    facts = replace(facts, step=step)
                    changed = await self._since(series, lasting, now)
                advice = of_label(facts, told, one.window, changed, accepted.reference)
            found.append(
                Standing(
                    series,
                    one.what,
                    told,
                    max(state.evidence, 0.0) / threshold,
                    accepted,
                    episodes,
                    advice=advice,
                    accuracy=known[-1] if known else None,
                    by_key={
                        key: part / threshold
                        for key, part in zip(accepted.reference.keys, state.by_key, strict=True)
                    },
                )
            )
        return found

    async def _why(
        self, accepted: Accepted, lasting: Sequence[Episode], happenings: Sequence[Happening]
    ) -> str:
        """What happened where the change began."""
        table, since = accepted.series.table, min(one.began for one in lasting)
        began = await versions(self._db, table, since)
        return why(lasting, [*began, *happenings], accepted.made)

    async def _since(
        self, series: Series, lasting: Sequence[Episode], now: float
    ) -> Mapping[str, int]:
        """Rows by key since the first of these episodes began."""
        steps = await self.steps(series, min(one.began for one in lasting), now)
        return sum((Counter(counts) for _, counts in steps), Counter())

    def _watched(self, table: str) -> Watched:
        (one,) = (one for one in watched(self._app)[0] if one.row.__mqinfer__.table == table)
        return one

    def _what(self, series: Series) -> str:
        fields = self._watched(series.table).fields
        return next((mark.what for mark in fields if mark.column == series.column), "")

    def _tables(self) -> list[str]:
        return [str(one.row.__mqinfer__.table) for one in watched(self._app)[0]]

    async def steps(
        self, series: Series, since: float, until: float, run: str = ""
    ) -> list[tuple[int, Mapping[str, int]]]:
        """Closed steps of a series with their counts by key, ascending."""
        return await asking.steps(self._db, series, since, until - _CLOSED, run)

    async def history(self) -> list[Episode]:
        """Episodes that ended with their reference, the oldest first."""
        return await self._kept.episodes()

    # --- what people say ------------------------------------------------------------------------

    async def say(
        self, episode: str, word: str, now: float, seconds: float = 0.0, note: str = ""
    ) -> Episode:
        """Keep what a person says of an episode that lasts; gives the episode after it.

        Raises:
            ConfigurationError: no such episode lasts, or it cannot be said of it.
        """
        lasting = {
            one.id: one for found in await self.look(now) for one in found.episodes if one.lasts
        }
        if episode not in lasting:
            raise ConfigurationError(
                f"no episode {episode!r} lasts; these do: {', '.join(lasting) or 'none'}"
            )
        saying = Saying(episode=episode, word=Word(word), said=now, seconds=seconds, note=note)
        after = said(lasting[episode], saying)
        await self._kept.say(saying)
        return after

    async def truth(
        self, table: str, column: str, pairs: Iterable[tuple[str, str]], now: float
    ) -> int:
        """Keep what is true of rows of a label, by their `_id`; gives how many.

        Raises:
            ConfigurationError: it is no label of the app.
        """
        labels = [
            f"{one.row.__mqinfer__.table}.{mark.column}"
            for one in watched(self._app)[0]
            for mark in one.fields
            if mark.what == "label"
        ]
        if f"{table}.{column}" not in labels:
            raise ConfigurationError(
                f"{table}.{column} is no label; these are: {', '.join(labels) or 'none'}"
            )
        return await self._truths.say(table, column, pairs, now)

    # --- references -----------------------------------------------------------------------------

    async def accept(
        self, names: Sequence[str], since: float, now: float
    ) -> list[tuple[Accepted, list[Alarm] | None]]:
        """Make the counts of a window the reference of series, and end their episodes.

        Args:
            names: of the series, as they are shown; or else parts of these; none: all of them.
            since: seconds since the epoch.
            now: the same.

        Returns:
            The references, each with the alarms that it would have made in its own time; None where
            that is too short.

        Raises:
            ConfigurationError: there is no such series, or it has too few rows; of all of them
                only where none has enough.
        """
        every = await self.look(now)
        standing = [one for one in every if str(one.series) in names] or [
            one for one in every if not names or any(name in str(one.series) for name in names)
        ]
        if not standing:
            raise ConfigurationError(f"no series is called {' or '.join(names) or 'anything'}")
        made: list[tuple[Accepted, list[Alarm] | None]] = []
        few: ConfigurationError | None = None
        threshold = self._budget.threshold(len(standing))
        for one in standing:
            steps = await self.steps(one.series, since, now)
            try:
                accepted = _accepted(one.series, steps, now, f"window of {_long(now - since)}")
            except ConfigurationError as error:
                if names:
                    raise
                few = error  # one of all, such as a version that has a reference and no rows yet
                continue
            ended = heard(one.episodes, await self._kept.sayings(), now, now)
            await self._kept.accept(accepted, ended)
            made.append((accepted, backtest([(at, dict(n)) for at, n in steps], threshold)))
        if few is not None and not made:
            raise few
        return made

    def threshold(self, series: int) -> float:
        """Of the evidence that is an alarm, where the budget is for so many series."""
        return self._budget.threshold(max(1, series))

    async def references_of(
        self, model: str, version: str, otherwise: str
    ) -> dict[Series, Accepted]:
        """What the answers of a version are held against: its reference, or that of another one.

        Args:
            model: its name.
            version: whose answers they are.
            otherwise: whose reference serves a series of which it has none.

        Returns:
            References by the series of `version`; none of a series of which neither has one.
        """
        found: dict[Series, Accepted] = {}
        for series, accepted in (await self._kept.references()).items():
            if series.model != model or series.version not in (version, otherwise):
                continue
            own = Series(series.table, series.column, model, version)
            if series.version == version or own not in found:
                found[own] = accepted
        return found

    async def adopt(
        self, run: str, now: float, of: tuple[str, str] | None = None
    ) -> list[Accepted]:
        """Make what a replay run said the reference of its models' versions that have none.

        So nothing has to warm up when a version goes live that was replayed before.

        Args:
            run: its name.
            now: seconds since the epoch.
            of: a model and a version; None: all that answered in the run.
        """
        references = await self._kept.references()
        rows = []
        for table in self._tables():
            rows += await self._db.query(
                "SELECT DISTINCT `table`, `column`, model, version "
                f"FROM {quoted(table + VIEW_SUFFIX)} WHERE run = {{run:String}}",
                {"run": run},
            )
        found = []
        for row in rows:
            series = Series(*(str(row[name]) for name in ("table", "column", "model", "version")))
            if series in references or not series.model:
                continue
            if of is not None and of != (series.model, series.version):
                continue
            try:
                steps = await self.steps(series, 0, now + 2 * _CLOSED, run)
                accepted = _accepted(series, steps, now, f"run {run}")
            except ConfigurationError as error:
                log.info("not adopted as reference", series=str(series), reason=str(error))
                continue
            await self._kept.accept(accepted)
            found.append(accepted)
        return found


def _accepted(
    series: Series, steps: Sequence[tuple[int, Mapping[str, int]]], now: float, source: str
) -> Accepted:
    try:
        reference = reference_of(steps)
    except ConfigurationError as error:
        raise ConfigurationError(f"{series}: {error}") from None
    return Accepted(series=series, reference=reference, made=now, source=source)


def _whole(counted: asking.Counted, now: float) -> bool:
    """Whether the last day would make a reference."""
    first = now - PROPOSED_SECONDS - asking.HOUR
    rows = [n for hour, n in counted.hours.items() if first < hour]
    return sum(rows) >= PROPOSED_ROWS and len(rows) >= PROPOSED_SECONDS // asking.HOUR


def _long(seconds: float) -> str:
    return f"{seconds / 3600:g} h"


async def adopt(
    app: App, db: Database, run: str, now: float, of: tuple[str, str] | None = None
) -> None:
    """As `Monitor.adopt`, for whoever promotes or moves an alias; it is no error if it fails."""
    if not watched(app)[0]:
        return
    monitor = Monitor(app, db)
    try:
        await monitor.ensure()
        for one in await monitor.adopt(run, now, of):
            log.info("adopted as reference", series=str(one.series), run=run)
    except MqinferError as error:
        log.warning("the run was not adopted as reference", run=run, reason=str(error))
