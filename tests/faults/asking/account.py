"""The account of the requests half: what every client was told, beside what is kept; pure."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from . import wishes
from .bulk import Bulk
from .client import Told
from .hooks import Heard

EXAMPLES = 10
UNFOLLOWED = ("", "malformed", "deleted")  # no client was told the end of these
FORGOTTEN = 60.0  # seconds behind the end of its request at which a client that waits is forgotten


@dataclass(frozen=True)
class Kept:
    """A request as it is kept.

    Attributes:
        id: of the request.
        number: of the client that asked.
        status: of it.
        answers: of it.
        errors: of it.
        ended: when, in seconds since the epoch.
        ends: how many different ends the server told of while it was listened to.
    """

    id: str
    number: int
    status: str
    answers: Sequence[Mapping[str, Any]]
    errors: Sequence[Mapping[str, str]]
    ended: float
    ends: int = 1


@dataclass
class Account:
    """What became of the requests and jobs of one run.

    Attributes:
        title: of the run.
        seed: that all is drawn from.
        requests: clients that asked.
        jobs: that were submitted.
        rows: of all jobs.
        hooked: ends that were told at the addresses of clients.
        repeated: webhooks that were told more than once.
        refused: webhooks that an address did not take at first.
        untold: requests whose end no address was told.
        strays: blobs of answers of requests that are gone: whoever dropped them died at it.
        answers: of all requests that are kept.
        ways: clients, by what they did.
        ends: requests that are kept, by their end.
        kept: requests that are kept; more than were asked for by clients without a key, who could
            not know whether they were heard, and asked once more.
        repeats: those.
        wrong: requests with another end, or other answers, than they must have, or that two were
            told of differently.
        twice: requests with two ends, keys with two requests, answers told twice.
        forgotten: clients that wait on, or heard of the end more than a minute late, and requests
            that nobody finds any more.
        bad_rows: jobs that are not exactly what they must be.
        letters: dead letters that should not be there, or that are there twice.
        faults: by kind.
        missed: faults that did not come about.
        lost: connections that clients lost, and gateways that were away.
        exits: exit codes of processes.
        unclean: processes that did not end with 0 at the end.
        waited: seconds that clients waited for the end: the median, and the 99th percentile.
        late: seconds between the end and the moment that its client knew it: so, and the most.
        seconds: of the run.
        examples: a few of what is wrong.
        offenders: ids of the requests that are wrong.
    """

    title: str
    seed: int
    requests: int
    jobs: int = 0
    rows: int = 0
    hooked: int = 0
    repeated: int = 0
    refused: int = 0
    untold: int = 0
    strays: int = 0
    answers: int = 0
    ways: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    repeats: int = 0
    wrong: int = 0
    twice: int = 0
    forgotten: int = 0
    bad_rows: int = 0
    letters: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    missed: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    exits: dict[str, int] = field(default_factory=dict)
    unclean: list[str] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    seconds: float = 0.0
    examples: list[str] = field(default_factory=list)
    offenders: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether every promise was kept."""
        bad = self.wrong or self.twice or self.forgotten or self.bad_rows
        bad = bad or self.letters or self.untold
        return not (bad or self.unclean)

    def settle(self, told: Sequence[Told], kept: Iterable[Kept], jobs: Sequence[Bulk]) -> None:
        """Compare what clients were told with what is kept, and both with what must be.

        Args:
            told: of each client.
            kept: every request.
            jobs: every job.
        """
        by_id = {one.id: one for one in kept}
        by_number: dict[int, list[Kept]] = defaultdict(list)
        for one in by_id.values():
            by_number[one.number].append(one)
            self.answers += len(one.answers)
        self.kept, self.ends = len(by_id), dict(Counter(one.status for one in by_id.values()))
        self.ways = dict(Counter(way for one in told for way in _ways(one)))
        self.lost = sum(one.lost for one in told)
        for one in told:
            self._client(one, by_id, by_number.pop(one.wish.number, []))
        for others in by_number.values():  # nobody's
            self._offence("wrong", f"nobody asked for {[one.id for one in others]}", others)
        waited = [one.ended - one.began for one in told if one.status not in UNFOLLOWED]
        late = [
            max(0.0, one.ended - by_id[one.ids[0]].ended)
            for one in told
            if _waits(one) and one.status not in UNFOLLOWED and one.ids and one.ids[0] in by_id
        ]
        self.waited, self.late = _spread(waited), _spread(late)
        self.jobs, self.rows = len(jobs), sum(len(one.rows) for one in jobs)
        for job in jobs:
            if job.odd or not job.done:
                self.bad_rows += 1
                self.examples.append(f"job {job.number}, {sorted(job.ids)}: {job.odd[:3]}")

    def hooks(
        self,
        told: Sequence[Told],
        kept: Iterable[Kept],
        heard: Mapping[int, Sequence[Heard]],
        odd: Sequence[tuple[int, str]],
    ) -> None:
        """Compare what addresses were told with what is kept.

        Args:
            told: of each client.
            kept: every request.
            heard: what addresses took, by the number of their client.
            odd: what they were told, and nobody may be, by the same.
        """
        ours: dict[int, dict[str, Kept]] = defaultdict(dict)
        for one in kept:
            ours[one.number][one.id] = one
        for number, text in odd:
            self._offence("wrong", text, list(ours[number].values()))
        wishes_ = {one.wish.number for one in told if one.wish.hook}
        for number, every in heard.items():
            counts = Counter(one.id for one in every)
            self.hooked += len(counts)
            self.repeated += sum(count > 1 for count in counts.values())
            for one in every:
                found = ours[number].get(one.id) if number in wishes_ else None
                right = found is not None and (one.status, list(one.answers), list(one.errors)) == (
                    found.status,
                    list(found.answers),
                    list(found.errors),
                )
                if not right:
                    text = f"the address of client {number} was told {one}, and kept is {found}"
                    self._offence("wrong", text, [found] if found else [])
        for number in wishes_:
            known = {one.id for one in heard.get(number, ())}
            for identity, one_kept in ours[number].items():
                if identity not in known:
                    text = f"its end was told at no address: {identity} ({number})"
                    self._offence("untold", text, [one_kept])

    def dead(self, letters: Iterable[tuple[str, str, str]]) -> None:
        """Look at the dead letters: stage, kind and id of each."""
        for (stage, kind, identity), count in Counter(letters).items():
            right = (kind == "rejected" and stage in ("cut", "at_once", "grade")) or (
                kind == "failed" and stage == "grade"
            )
            if not right or count > 1:
                self.letters += 1
                self._example(f"{count} dead letters: {stage} {kind} {identity}")

    # --- inside ---------------------------------------------------------------------------------

    def _client(self, told: Told, by_id: Mapping[str, Kept], ours: Sequence[Kept]) -> None:
        wish = told.wish
        for text in told.odd:
            self._offence("twice" if "twice" in text else "wrong", f"{text} ({wish})", ours)
        if wish.malformed:
            if ours:
                self._offence("wrong", f"what is malformed became a request ({wish})", ours)
            return
        if told.deleted:
            # Gone, unless a call of its own that was lost was heard afterwards.
            wish = replace(wish, fields=wish.anew) if told.anew else wish
            most = 1 if told.anew else bool(told.lost) if wish.key else told.unsure
            if len(ours) > most:
                self._offence("wrong", f"{len(ours)} are kept, and deleted ({wish})", ours)
        waits_on = not told.ids or (_waits(told) and not told.status)
        if waits_on and not told.odd:  # else it gave up
            self._offence("forgotten", f"its client waits on ({wish})", ours)
        for identity in told.ids:
            if identity not in by_id and (told.anew or not told.deleted):
                self._offence("forgotten", f"{identity} is not kept ({wish})", ours)
        most = 1 if wish.key else 1 + told.unsure
        if len(ours) > most:
            text = f"{len(ours)} requests, and {most} may be ({wish})"
            self._offence("twice", text, ours)
        self.repeats += max(0, len(ours) - 1)
        for one in ours:
            if text := wishes.wrong(wish, one.status, one.answers, one.errors):
                self._offence("wrong", f"{one.id}: {text} ({wish})", [one])
            if one.ends > 1:
                self._offence("twice", f"{one.id} has {one.ends} ends ({wish})", [one])
        found = by_id.get(told.ids[0]) if told.ids else None
        if found is None or told.status in UNFOLLOWED:
            return
        same = (told.status, list(told.answers), list(told.errors)) == (
            found.status,
            list(found.answers),
            list(found.errors),
        )
        if not same:
            text = f"told {told.status} {told.answers} {told.errors}, kept {found} ({wish})"
            self._offence("wrong", text, [found])
        if told.canceled is not None and told.canceled and found.status != "canceled":
            self._offence("wrong", f"canceled, and is {found.status} ({wish})", [found])
        if told.ended - found.ended > FORGOTTEN:
            text = f"its client knew {told.ended - found.ended:.0f} s later ({wish})"
            self._offence("forgotten", text, [found])

    def _offence(self, what: str, text: str, kept: Sequence[Kept]) -> None:
        setattr(self, what, getattr(self, what) + 1)
        self._example(f"{what}: {text}")
        self.offenders += [one.id for one in kept if one.id not in self.offenders]

    def _example(self, text: str) -> None:
        if len(self.examples) < EXAMPLES:
            self.examples.append(text)

    # --- for people -----------------------------------------------------------------------------

    def json(self) -> str:
        """As JSON."""
        return json.dumps({**asdict(self), "clean": self.clean}, indent=2)

    def table(self) -> str:
        """For a person."""
        lines = [
            ("run", self.title),
            ("seed", self.seed),
            ("clients", f"{self.requests:,}"),
            *((f"  {way}", f"{count:,}") for way, count in sorted(self.ways.items())),
            ("requests kept", f"{self.kept:,}"),
            *((f"  {end}", f"{count:,}") for end, count in sorted(self.ends.items())),
            ("  asked again without a key", f"{self.repeats:,}"),
            ("answers", f"{self.answers:,}"),
            ("jobs", f"{self.jobs} of {self.rows:,} rows"),
            ("ends told at addresses", f"{self.hooked:,}"),
            ("  more than once", f"{self.repeated:,}"),
            ("  refused at first", f"{self.refused:,}"),
            ("faults", f"{sum(self.faults.values())}"),
            *((f"  {kind}", count) for kind, count in sorted(self.faults.items())),
            *((f"  missed: {kind}", count) for kind, count in sorted(self.missed.items())),
            ("connections lost, gateways away", f"{self.lost:,}"),
            ("wrong", self.wrong),
            ("ended or answered twice", self.twice),
            ("forgotten", self.forgotten),
            ("told at no address", self.untold),
            ("blobs of requests that are gone", self.strays),
            ("jobs that are wrong", self.bad_rows),
            ("dead letters that should not be", self.letters),
            ("seconds waited (median, p99, most)", _text(self.waited)),
            ("seconds behind the end (the same)", _text(self.late)),
            ("exit codes", ", ".join(f"{c}: {n}" for c, n in sorted(self.exits.items()))),
            ("not stopped in order", ", ".join(self.unclean) or "none"),
            ("seconds", f"{self.seconds:.0f}"),
        ]
        width = max(len(name) for name, _ in lines) + 2
        return "\n".join([*(f"{name:{width}}{value}" for name, value in lines), *self.examples])


def _waits(told: Told) -> bool:
    return told.wish.way != "leave" and not told.wish.malformed


def _ways(told: Told) -> list[str]:
    wish = told.wish
    if wish.malformed:
        return ["malformed"]
    marks = {
        "under a key": wish.key,
        "twice under it": wish.twice,
        "cancels": wish.cancel,
        "by webhook": wish.hook,
        "deletes": told.deleted or None,
        "deletes, and asks anew": told.anew,
    }
    return [f"by {wish.way}", *(name for name, here in marks.items() if here not in (False, None))]


def _spread(seconds: Sequence[float]) -> list[float]:
    """Median, 99th percentile and the most."""
    if len(seconds) < 2:
        return [round(one, 2) for one in seconds]
    cuts = statistics.quantiles(seconds, n=100)
    return [round(one, 2) for one in (cuts[49], cuts[98], max(seconds))]


def _text(seconds: Sequence[float]) -> str:
    return ", ".join(f"{one:.2f}" for one in seconds)
