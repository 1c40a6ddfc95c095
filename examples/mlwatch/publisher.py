"""Publisher: paths of photographs at a rate, as the study's producers do.

    python -m examples.mlwatch.publisher --rate 100 --count 6000
    python -m examples.mlwatch.publisher --rate 100 --drift night --share 0.3

Finds the servers by the environment; `MQINFER_BLOBS` is the folder of the photographs.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import mqinfer
from examples.mlwatch.app import Picture, app
from examples.mlwatch.photographs import World
from examples.mlwatch.world import SHARE, Draw
from mqinfer import Blob, Client
from mqinfer.errors import MqinferError

AT_ONCE = 500  # that are published side by side
TICK = 0.02  # seconds
AGAIN = 0.1  # seconds until it is asked again whether there is room


@dataclass(frozen=True)
class Pace:
    """How fast, and how many.

    Attributes:
        rate: photographs a second.
        count: of them; None: until it is stopped.
        most_open: that may wait for the stage; more, and it holds. None does not ask.
    """

    rate: float
    count: int | None = None
    most_open: int | None = None


async def publish(
    client: Client, draw: Draw, pace: Pace, sent: Callable[[int], object] = lambda _: None
) -> None:
    """Publish photographs by the clock: what it is late it makes up for.

    Args:
        client: of the app.
        draw: which ones.
        pace: how fast.
        sent: is told how many went, each time.
    """
    began = time.monotonic()
    done, room = 0, 0
    while pace.count is None or done < pace.count:
        due = int((time.monotonic() - began) * pace.rate) + 1 - done
        if pace.count is not None:
            due = min(due, pace.count - done)
        if due <= 0:
            await asyncio.sleep(TICK)
            continue
        if pace.most_open is not None:
            if room <= 0:
                room = pace.most_open - await client.lag("predict")
            if room <= 0:
                await asyncio.sleep(AGAIN)
                continue
            due = min(due, room)
        paths = draw.paths(min(due, AT_ONCE))
        await client.publish_all([Picture(Blob.at(path)) for path in paths])
        done += len(paths)
        room -= len(paths)
        sent(len(paths))


async def _main(draw: Draw, pace: Pace) -> None:
    console = Console()
    began, total = time.monotonic(), 0
    columns = (TextColumn("photographs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    async with mqinfer.connect(app) as client:
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task("", total=pace.count)

            def sent(count: int) -> None:
                nonlocal total
                total += count
                progress.advance(bar, count)

            await publish(client, draw, pace, sent)
    seconds = time.monotonic() - began
    console.print(f"published {total:,} in {seconds:.1f} s: {total / seconds:,.0f} a second")


def main() -> int:
    """Publish with the settings of the environment."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.mlwatch.publisher", description="Paths of photographs at a rate."
    )
    drifts = [one for one in get_args(World) if one != "day"]
    parser.add_argument("--rate", type=_positive, default=100.0, help="a second")
    parser.add_argument("--count", type=int, help="of them; without it, until Ctrl-C")
    parser.add_argument("--most-open", type=int, help="hold while more wait for the stage")
    parser.add_argument("--drift", choices=drifts, help="how the world has changed")
    parser.add_argument("--share", type=float, default=SHARE, help="of what comes is so")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    draw = Draw(options.seed, options.drift, options.share)
    try:
        asyncio.run(_main(draw, Pace(options.rate, options.count, options.most_open)))
    except MqinferError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
