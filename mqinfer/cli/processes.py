"""Processes in groups under one supervisor: of `mqinfer worker` and of `mqinfer deploy apply`.

The supervisor does nothing but wait for signals and children, in one thread and without an event
loop: a crashed child is started again after a pause that grows; a signal is passed on; when all
have ended, so does it. A group may have a range of processes, and then has as many as it needs
(`supervise/scaling.py`, what `looks.py` sees); one whose command changes has its processes replaced
one by one. If the supervisor is killed itself, the kernel kills its children (Linux; elsewhere they
look for it once a second), so that nothing runs that nobody supervises. When a child is started
again is said in `supervise/lives.py`, for the embedded servers as well.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mqinfer import signals
from mqinfer.cli.child import STOPS, SUPERVISOR, log
from mqinfer.cli.errors import ExitCode
from mqinfer.processors import usable
from mqinfer.supervise.group import Group
from mqinfer.supervise.lives import Lives, ended_by
from mqinfer.supervise.scaling import Scaler

if TYPE_CHECKING:
    from mqinfer.cli.looks import Looks

_LOOKS = 0.1  # seconds between two looks at the children, where they may end without a signal
_FOLLOWS = 0.5  # seconds between two looks at what there is to do, and at who is ready
_KILL_AFTER = 10.0  # beyond the grace that a child gives its handlers


def _wait_for(blocked: set[signal.Signals], timeout: float) -> int:
    """Wait for one of the blocked signals; its number, which is SIGCHLD's when the time is over.

    Without `signal.sigtimedwait`, which macOS lacks: where the process was stopped and went on
    (Ctrl-Z, a laptop that slept) after the time was over, CPython gives what lay in memory.
    """
    if sys.platform == "darwin":  # it may drop a SIGCHLD that is blocked: look at the children soon
        timeout = min(timeout, _LOOKS)
    over = threading.Timer(timeout, signal.pthread_kill, (threading.get_ident(), signal.SIGCHLD))
    over.daemon = True
    over.start()
    try:
        return signal.sigwait(blocked)
    finally:
        over.cancel()


class _Child(Lives):
    """One place for a process, with its number and the one that has it."""

    def __init__(self, group: Group, number: int):
        super().__init__()
        self.group = group
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.code: int | None = None
        self.leaves: float | None = None  # it was told to end, and is killed then

    @property
    def over(self) -> bool:
        """Whether there is no process, and none to come."""
        return self.process is None and self.again is None


class _Place:
    """A group at work: its processes, and how many there should be."""

    def __init__(self, group: Group):
        self.group = group
        self.children: list[_Child] = []
        self.scaler = Scaler(group.bounds, usable())
        self.seen = 0.0  # the look that the scaler had last
        self.refused = False  # this version of it cannot run

    def change(self, group: Group) -> None:
        """It is another from now on."""
        wanted, self.group, self.refused = self.scaler.wanted, group, False
        self.scaler = Scaler(group.bounds, usable())
        self.scaler.wanted = max(group.bounds.least, min(wanted, group.bounds.most))

    @property
    def staying(self) -> list[_Child]:
        return [child for child in self.children if child.leaves is None]

    @property
    def number(self) -> int:
        """That no child has."""
        taken = {child.number for child in self.children}
        return next(number for number in itertools.count() if number not in taken)


class Supervisor:
    """Runs groups of processes.

    Args:
        groups: to begin with.
        grace: seconds that a child may take to stop in order.
        looks: sees how much each group has to do, and whose processes are ready.
        changed: gives the groups when they are others now. With it the supervisor goes on when none
            is left, until a signal comes.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        *,
        grace: float = 25.0,
        looks: Looks | None = None,
        changed: Callable[[], Sequence[Group] | None] | None = None,
    ):
        self._places = {group.name: _Place(group) for group in groups}
        self._grace = grace
        self._looks = looks
        self._changed = changed
        self._codes: list[int] = []  # of children that ended, and were not to be followed
        self._signals = 0
        self._deadline: float | None = None
        self._configuration = False

    @property
    def _children(self) -> list[_Child]:
        return [child for place in self._places.values() for child in place.children]

    def run(self) -> int:
        """Supervise until every child has ended; the exit code."""
        # Blocked and waited for, so that none is lost between a look and the next.
        watched = {*STOPS, signal.SIGCHLD}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
        try:
            signals.hold()  # one that came until now; from now on they are waited for
            for place in self._places.values():
                self._fill(place)
            with contextlib.nullcontext() if self._looks is None else self._looks.looking():
                while True:
                    now = time.monotonic()
                    if not self._signals:
                        self._follow(now)
                    self._start_due(now)
                    done = self._signals or self._changed is None
                    if done and all(child.over for child in self._children):
                        return self._exit_code()
                    received = _wait_for(watched, self._patience(now))
                    if received in STOPS:
                        self._stop(received)
                    self._reap()
                    self._kill_late(time.monotonic())
        finally:
            self._kill()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    # --- how many, and which --------------------------------------------------------------------

    def _follow(self, now: float) -> None:
        """Take in what changed: the groups, what there is to do, who is ready."""
        groups = None if self._changed is None else self._changed()
        if groups is not None:
            self._regroup(groups, now)
        for place in self._places.values():
            self._scale(place)
            self._replace(place, now)

    def _regroup(self, groups: Sequence[Group], now: float) -> None:
        wanted = {group.name: group for group in groups}
        for name, place in self._places.items():
            if name not in wanted:
                for child in place.staying:
                    self._send_off(child, now)
        for name, group in wanted.items():
            place = self._places.setdefault(name, _Place(group))
            if place.group != group:
                place.change(group)
            if not place.staying:
                self._fill(place)
            self._resize(place, now)

    def _scale(self, place: _Place) -> None:
        look = None if self._looks is None else self._looks.of(place.group.name)
        if look is None or look.at == place.seen or not place.group.bounds.scales:
            return
        place.seen = look.at
        before, held = place.scaler.wanted, place.scaler.held
        wanted = place.scaler.look(
            look.at,
            waiting=look.waiting,
            in_flight=look.in_flight,
            settled=look.settled,
            busy=look.busy,
            held=look.held,
        )
        told = {"group": place.group.name, "waiting": look.waiting, "held": look.held}
        log().debug("looked", **told, processes=wanted)
        if look.held and look.held != held and look.waiting:
            log().info("more would not help", group=place.group.name, why=look.held)
        if wanted != before:
            why = place.scaler.why
            log().info("scaling", group=place.group.name, processes=wanted, before=before, why=why)
            self._resize(place, time.monotonic())

    def _resize(self, place: _Place, now: float) -> None:
        """Bring the number of processes to what is wanted."""
        # Those that the group had before go first.
        staying = sorted(place.staying, key=lambda c: not c.group.same_process(place.group))
        for child in staying[place.scaler.wanted :]:
            self._send_off(child, now)
        if staying and len(staying) < place.scaler.wanted and not place.refused:
            self._fill(place)

    def _fill(self, place: _Place) -> None:
        for _ in range(place.scaler.wanted - len(place.staying)):
            place.children.append(_Child(place.group, place.number))

    def _replace(self, place: _Place, now: float) -> None:
        """One by one, put processes of the group as it is now in place of those it had before."""
        staying = place.staying
        old = [child for child in staying if not child.group.same_process(place.group)]
        if not old or place.refused or any(c.leaves is not None for c in place.children):
            return
        if place.group.alone or self._looks is None or old[0].process is None:
            self._send_off(old[0], now)
            # One that waits for the other's end may have its number, and so its port.
            number = old[0].number if place.group.alone else place.number
            place.children.append(_Child(place.group, number))
            return
        young = [child for child in staying if child not in old]
        ready = self._looks.ready
        if len(staying) <= place.scaler.wanted:
            place.children.append(_Child(place.group, place.number))
        elif young and all(c.process is not None and c.process.pid in ready for c in young):
            self._send_off(old[0], now)

    def _send_off(self, child: _Child, now: float) -> None:
        child.end()
        child.leaves = now + self._grace + _KILL_AFTER
        if child.process is not None:
            child.process.send_signal(signal.SIGTERM)

    # --- children -------------------------------------------------------------------------------

    def _start_due(self, now: float) -> None:
        for place in self._places.values():
            leaving = any(child.leaves is not None and not child.over for child in place.children)
            for child in place.children:
                waits = place.group.alone and leaving
                if child.process is None and child.due(now) and not waits:
                    self._start(child, now)

    def _start(self, child: _Child, now: float) -> None:
        group = child.group
        command = [sys.executable, "-m", "mqinfer", *group.arguments]
        if group.http is not None:
            port = group.http + child.number if group.http else 0
            command.append(f"--http={port}")
        own = {SUPERVISOR: f"{os.getpid()}:{child.number}"}
        child.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **dict(group.environ), **own},
            # A Ctrl-C in the terminal is for the supervisor, which passes it on once.
            process_group=0,
        )
        child.begin(now)
        log().info("process started", **self._named(child), pid=child.process.pid)

    def _named(self, child: _Child) -> dict[str, Any]:
        group = {"group": child.group.name} if child.group.name else {}
        return {**group, "process": child.number}

    def _reap(self) -> None:
        for place in self._places.values():
            for child in list(place.children):
                if child.process is None:
                    if child.over and child.leaves is not None:  # it had crashed before
                        place.children.remove(child)
                    continue
                if child.process.poll() is None:
                    continue
                code = child.process.returncode
                pid, child.process = child.process.pid, None
                self._ended(place, child, pid, code)
                if child.leaves is not None:
                    place.children.remove(child)

    def _ended(self, place: _Place, child: _Child, pid: int, code: int) -> None:
        # Who had its share has ended in order, also where nobody follows it.
        child.code = ExitCode.DONE if code == ExitCode.AGAIN else code
        if self._signals:
            self._codes.append(child.code)
            return
        named = self._named(child)
        if child.leaves is not None or code == ExitCode.DONE:
            log().info("process ended", **named, pid=pid)
            return
        if code == ExitCode.AGAIN:
            log().info("process ended to begin anew", **named, pid=pid)
            child.crash(now := time.monotonic())
            if child.crashes == 1:  # else its share is less than it takes to begin
                child.again = now
            return
        if code == ExitCode.USAGE:
            log().error("a process cannot run as configured", **named, pid=pid)
            if self._changed is not None:
                # Whoever deployed it sees to that; the processes that it had before go on.
                place.refused = True
                child.leaves = time.monotonic()
                return
            self._configuration = True
            self._stop(signal.SIGTERM)
            return
        wait = child.crash(time.monotonic())
        by = ended_by(code)
        how = f"exit code {code}" if by is None else f"killed by {by}"
        log().error("process crashed", **named, pid=pid, how=how, again_in=wait)

    # --- stopping -------------------------------------------------------------------------------

    def _stop(self, number: int) -> None:
        self._signals += 1
        log().info("stopping", signal=signal.Signals(number).name)
        if self._deadline is None:
            self._deadline = time.monotonic() + self._grace + _KILL_AFTER
        for child in self._children:
            child.end()
            if child.process is not None:
                child.process.send_signal(signal.SIGTERM)
        if self._signals > 2:
            self._kill()

    def _kill_late(self, now: float) -> None:
        if self._deadline is not None and now > self._deadline:
            self._kill()
        for child in self._children:
            if child.leaves is not None and child.process is not None and now > child.leaves:
                child.process.kill()

    def _kill(self) -> None:
        for child in self._children:
            child.end()
            if child.process is not None:
                child.process.kill()
                child.process.wait()
                child.code, child.process = child.process.returncode, None
                self._codes.append(child.code)

    def _patience(self, now: float) -> float:
        times = [child.again for child in self._children if child.again is not None]
        times += [child.leaves for child in self._children if child.leaves and child.process]
        if self._deadline is not None:
            times.append(self._deadline)
        longest = 60.0 if self._looks is None and self._changed is None else _FOLLOWS
        return max(0.0, min(min(times, default=now + longest) - now, longest))

    def _exit_code(self) -> int:
        if self._configuration:
            return ExitCode.USAGE
        if self._signals > 1:
            return ExitCode.INTERRUPTED
        codes = [*self._codes, *(child.code for child in self._children)]
        return ExitCode.DONE if not any(codes) else ExitCode.FAILED
