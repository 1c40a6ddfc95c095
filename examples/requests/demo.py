"""The case study from end to end on this machine; `make demo-requests` runs it.

    python -m examples.requests.demo

Starts NATS and the inference server, a worker and a gateway, and has eight people ask at a time,
one of them with a browser. Then come more than there is room for; the worker is killed in the
middle, then the gateway; and answers expire. It keeps what it promises, or ends with exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from examples.plants.local import Broken, clear, conclude, machine, run_to_exit
from examples.requests import drawing, models
from examples.requests.app import LIMIT
from examples.requests.checks import Checks, leaves, middle
from examples.requests.local import Backend, backend, browser
from examples.requests.people import Person, Told
from mqinfer.testing import until

if TYPE_CHECKING:
    from examples.requests.visitor import Visitor

KEEP = 20  # seconds; a day would be long for a demo
BACKLOG = 300  # messages: of nearly nine pictures
LARGE = 150_000  # the study's number
CROWD = 14  # people who come one behind the other, more than there is room for
EVERY = 0.3  # seconds between them
WAIT = 120.0  # seconds for what a busy machine does; only what fails waits so long
AT_ONCE = 0.1  # of the time that an answer takes: by then whoever asks has an id

console = Console(highlight=False, soft_wrap=True)
PICTURES = {f"{name}.jpg": drawing.drawn(name) for name in drawing.DRAWINGS}


async def demo(people: int, folder: Path) -> None:
    """Run it all.

    Raises:
        Broken: a promise does not hold.
        StackError: something did not start; the text has the end of its log.
    """
    began = time.monotonic()
    console.print("making the model and starting servers ...")
    repository = await asyncio.to_thread(models.repository)
    clear(folder)
    checks, late = Checks(console), list[BaseException]()
    try:
        await _all(folder, repository, people, checks)
    except* (AssertionError, TimeoutError) as errors:
        late.append(errors)
    if late:
        raise Broken(f"what was waited for did not come: {leaves(late[0])}")
    checks.figures["machine"] = machine()
    conclude(checks.figures, checks.broken, folder, time.monotonic() - began, console)


async def _all(folder: Path, repository: Path, people: int, checks: Checks) -> None:
    async with backend(folder, repository, keep=f"{KEEP}s", max_backlog=BACKLOG) as running:
        console.print(f"page: {running.gateway.url} ({machine()})")
        person = Person(running.gateway.url)
        await _warm(person)
        async with _browsing(running) as browsing:
            await _several(running, people, browsing, checks)
            await _overload(person, checks)
            await _worker_dies(running, person, checks)
            await _gateway_dies(running, person, browsing, checks)
            await _canceled(person, checks)
            await _expired(running, person, browsing, checks)
            if browsing is not None:
                wrong = "; ".join(browsing.mistakes)
                checks.check(not wrong, f"no mistake in the page's own code {wrong}")


async def _warm(person: Person) -> None:
    """The first calls wait for the model to be read."""
    await person.look(PICTURES["clock.jpg"], "warm.jpg")


@asynccontextmanager
async def _browsing(running: Backend) -> AsyncIterator[Visitor | None]:
    """Somebody with a browser, if there is one."""
    program = browser()
    try:
        from examples.requests.visitor import launched, visitor
    except ImportError:
        program = None
    if program is None:
        console.print("no browser: pip install playwright, and have a chromium on the PATH")
        yield None
        return
    async with launched(program) as chromium, visitor(chromium, running.gateway.url) as found:
        yield found


async def _several(running: Backend, people: int, browsing: Visitor | None, checks: Checks) -> None:
    """Many at a time, with the long calculation between them."""
    alone = await Person(running.gateway.url).look(PICTURES["balloon.jpg"], "alone.jpg")
    checks.fact(
        f"one alone: id after {1000 * alone.accepted:.0f} ms, what is on the picture after "
        f"{alone.first:.2f} s, all of it after {alone.end:.2f} s",
        alone={"id": alone.accepted, "first": alone.first, "end": alone.end},
    )
    names = list(PICTURES)
    others = people - (browsing is not None)
    told = [Told() for _ in range(others)]
    number = Told()
    async with asyncio.TaskGroup() as group:
        for index, one in enumerate(told):
            name = names[index % len(names)]
            group.create_task(Person(running.gateway.url).look(PICTURES[name], name, one))
        group.create_task(Person(running.gateway.url).factorial(LARGE, number))
        if browsing is not None:
            group.create_task(_by_page(running, browsing, checks))
    accepted = sorted(one.accepted for one in told)
    ends = sorted(one.end for one in told)
    checks.fact(
        f"{people} at a time: id after {1000 * middle(accepted):.0f} ms (the slowest "
        f"{1000 * accepted[-1]:.0f} ms), what is on the picture after "
        f"{middle([one.first for one in told]):.2f} s, all of it after {middle(ends):.1f} s (the "
        f"last {ends[-1]:.1f} s)",
        people=people,
        accepted=accepted,
        first=[one.first for one in told],
        end=ends,
    )
    product = number.answers.get("product", {})
    checks.fact(
        f"meanwhile {LARGE:,}! has {product.get('digits', 0):,} digits, begins with "
        f"{product.get('first')} and ends with {product.get('zeros')} zeros: "
        f"{product.get('seconds')} s in its process, {number.end:.1f} s in all",
        factorial=product,
    )
    checks.check(all(one.status == "succeeded" for one in told), "each had the answer")
    checks.check(
        accepted[-1] < AT_ONCE * ends[0], "each had an id in a tenth of the time of any answer"
    )
    checks.check(all(one.progress for one in told), "each was told how far it is")
    checks.check(all(one.first < one.end for one in told), "the first answer came before the end")
    checks.check(product.get("digits") == 711_273, "the factorial has 711,273 digits")
    large = await Person(running.gateway.url).factorial(LIMIT + 1)
    reason = large.errors[0]["reason"] if large.errors else ""
    checks.check(
        (large.status, large.errors[0]["kind"] if large.errors else "") == ("failed", "rejected"),
        f"a larger one is rejected: {reason!r}",
    )


async def _by_page(running: Backend, browsing: Visitor, checks: Checks) -> None:
    """One of them with a browser."""
    await browsing.choose("balloon.jpg", PICTURES["balloon.jpg"])
    identity, took = await browsing.id_of("balloon.jpg")
    checks.fact(f"in the browser: id {identity} after {took} ms", page_id_ms=took)
    await browsing.sees("balloon.jpg", "Done")
    picture = running.stack.dir / "page.png"
    await browsing.photograph(picture)
    checks.fact(f"in the browser: answered; {picture}")


async def _overload(person: Person, checks: Checks) -> None:
    """More come than there is room for."""
    told = [Told() for _ in range(CROWD)]
    async with asyncio.TaskGroup() as group:
        for one in told:
            group.create_task(person.look(PICTURES["traffic light.jpg"], "crowd.jpg", one))
            await asyncio.sleep(EVERY)
    turned = [one for one in told if 429 in one.codes]
    waits = [seconds for one in told for seconds in one.retry_after]
    checks.fact(
        f"{CROWD} more, one each {EVERY:g} s: {len(turned)} were told that there is no room, and "
        f"to come again after {min(waits, default=0)} to {max(waits, default=0)} s; the last had "
        f"the answer after {max(one.end for one in told):.1f} s",
        turned_away=len(turned),
        retry_after=waits,
    )
    checks.check(bool(turned), "429 with Retry-After when there is no room")
    checks.check(
        all(one.status == "succeeded" for one in told), "who came again as told had the answer"
    )


async def _worker_dies(running: Backend, person: Person, checks: Checks) -> None:
    """Nothing is lost with the worker: the request stands, and goes on with the next."""
    told = Told()
    asking = asyncio.create_task(person.look(PICTURES["balloon.jpg"], "dies.jpg", told))
    await until(lambda: told.progress > 3 or asking.done(), "the middle", WAIT)
    running.worker.kill()
    killed = time.monotonic()
    stands = await person.status(told.id)
    heard = told.progress
    await running.worker.start()
    await asking
    after = time.monotonic() - killed
    checks.fact(
        f"worker killed when progress was told {heard} times: the request stood (HTTP {stands}), "
        f"and had its answer {after:.1f} s later",
        after_kill=after,
    )
    heat = told.answers.get("heat", {})
    checks.check(stands == 200, "its status was there meanwhile")
    checks.check(
        told.status == "succeeded" and heat.get("missing") == 0, "the answer came, and is whole"
    )


async def _gateway_dies(
    running: Backend, person: Person, browsing: Visitor | None, checks: Checks
) -> None:
    """The gateway keeps nothing: another start of it answers, and who was connected goes on."""
    told = Told()
    running.worker.kill()  # so that nothing is answered before the gateway dies as well
    asking = asyncio.create_task(person.look(PICTURES["clock.jpg"], "gateway.jpg", told))
    await until(lambda: told.id or asking.done(), "an id", WAIT)
    if browsing is not None:
        await browsing.choose("clock.jpg", PICTURES["clock.jpg"])
        await browsing.id_of("clock.jpg")
    running.gateway.kill()
    await running.worker.start()
    if browsing is not None:
        await browsing.sees("clock.jpg", "No connection")
        checks.fact("gateway killed: the page says that it has no connection; the work goes on")
    await running.gateway.start()
    await running.gateway.wait_ready()
    if browsing is not None:
        await browsing.sees("clock.jpg", "Done")
        checks.check(True, "the page connected again by itself, and had the answer")
    await asking
    checks.check(told.status == "succeeded", "so had a program that went on behind the last event")


async def _canceled(person: Person, checks: Checks) -> None:
    """Who cancels is told so, and nobody works on."""
    told = Told()
    asking = asyncio.create_task(person.factorial(LARGE, told))
    await until(lambda: told.id or asking.done(), "an id", WAIT)
    code = await person.cancel(told.id)
    await asking
    checks.check(
        (code, told.status) == (200, "canceled"), "a calculation is canceled while it is at work"
    )


async def _expired(
    running: Backend, person: Person, browsing: Visitor | None, checks: Checks
) -> None:
    """An answer is not kept for ever, and that is said."""
    told = await person.look(PICTURES["clock.jpg"], "kept.jpg")
    kept = await person.status(told.id)
    began = time.monotonic()

    async def gone() -> bool:
        return await person.status(told.id) == 404

    await until(gone, "the end of an answer", KEEP + WAIT)
    checks.fact(
        f"an answer that is kept for {KEEP} s: HTTP {kept}, and 404 after "
        f"{time.monotonic() - began:.0f} s"
    )
    if browsing is not None:
        await browsing.sees("clock.jpg", "Its answer is not kept any more")
        checks.check(True, "the page says that it is not kept any more")
        await browsing.photograph(running.stack.dir / "page-expired.png")


def main() -> int:
    """Run the demo; 0 if every promise holds."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.requests.demo", description="The small backend, end to end."
    )
    parser.add_argument("--people", type=int, default=8, help="who ask at a time")
    parser.add_argument("--dir", type=Path, default=Path(".mqinfer/requests"), help="cleared first")
    options = parser.parse_args()
    return run_to_exit(demo(options.people, options.dir.absolute()))


if __name__ == "__main__":
    sys.exit(main())
