"""The drones: make a season's photographs, upload them, publish them.

    python -m examples.plants.fleet --positions 20 --days 11 --seed 7

Each photograph goes to `<position_id>/<date>/image.png` in the blob store, and a message with that
path to the stream. The id of a message follows from what it says, so whoever flies the same season
again publishes the same identities, and nothing is answered twice.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import dataclass

import msgspec
from rich.console import Console
from rich.progress import Progress

import mqinfer
from examples.plants.app import app
from examples.plants.materials import DEFAULT_CACHE, MaterialsError, ensure_materials
from examples.plants.season import Season, Shot
from mqinfer import Blob, Client, Message, MqinferError
from mqinfer.image import encode_png
from stages.plants import Area, Box, DroneImage, FieldPlan, InspectedLeaf, Inspection


@dataclass(frozen=True, slots=True)
class Flight:
    """What one photograph makes a drone publish.

    Attributes:
        area: whether the plants there get medicine.
        photo: the photograph, with its place in the blob store.
        truth: what is really on it; it knows nothing of the models.
    """

    area: Area
    photo: DroneImage
    truth: Inspection

    @property
    def photo_id(self) -> str:
        """The photograph's identity: where, a digest of the very pixels, and when.

        Ending in the day, it says by which one all that comes of it is stored.
        """
        png = self.photo.image.inline or b""
        return f"photo:{self.photo.position_id}:{_digest(png)}@{self.photo.date}"

    @property
    def truth_id(self) -> str:
        """The inspection's identity."""
        return f"{identity(self.truth)}@{self.truth.date}"


def identity(message: Message) -> str:
    """An id that follows from the content of a message without blobs."""
    return f"{type(message).__name__}:{_digest(msgspec.json.encode(message, order='sorted'))}"


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def new_season(positions: int, days: int, seed: int) -> Season:
    """A season on leaves and grounds that no model was trained on.

    Raises:
        MaterialsError: the pictures that scenes are composed of cannot be fetched.
    """
    return Season(positions, days, seed, "test", ensure_materials(DEFAULT_CACHE))


def flight(shot: Shot) -> Flight:
    """The messages about one shot."""
    path = f"{shot.position_id}/{shot.date}/image.png"
    leaves = [
        InspectedLeaf(Box(*leaf.box), {name: int(grade) for name, grade in leaf.grades.items()})
        for leaf in shot.leaves
    ]
    image = Blob(encode_png(shot.photo, compression=1), path=path)
    return Flight(
        shot.area,
        DroneImage(shot.position_id, shot.date, image),
        Inspection(shot.position_id, shot.date, leaves),
    )


def flights(season: Season, after: int = 0) -> Iterator[Flight]:
    """Flights over a season's positions, day by day, as many days as it has.

    Args:
        season: whose positions.
        after: so many days that were flown before.
    """
    for day in range(after, after + season.days):
        for position in range(season.positions):
            yield flight(season.shot(position, day))


def flown_before(_identity: str) -> None:
    """A season that is flown again is dropped as repeats: that is what flying it twice shows."""


async def fly(client: Client, flown: Iterable[Flight], sent: Callable[[], None]) -> int:
    """Upload and publish, one after the other, and at the end say which positions got medicine.

    Args:
        client: connected to the app.
        flown: what to publish; each is made in a thread.
        sent: called after each photograph.

    Returns:
        How many photographs there were.

    Raises:
        PublishError: the stream refuses a message.
        BlobError: the store refuses a photograph.
    """
    count = 0
    areas: dict[str, Area] = {}
    async for one in in_thread(iter(flown)):
        await send(client, one)
        areas[one.photo.position_id] = one.area
        count += 1
        sent()
    plan = FieldPlan(areas)
    await client.publish(plan, id=identity(plan), on_repeat=flown_before)
    return count


async def send(client: Client, one: Flight) -> None:
    """Upload and publish one photograph, and what is really on it.

    Raises:
        PublishError: the stream refuses a message.
        BlobError: the store refuses the photograph.
    """
    await asyncio.gather(
        client.publish(one.truth, id=one.truth_id, on_repeat=flown_before),
        client.publish(one.photo, id=one.photo_id, on_repeat=flown_before),
    )


async def in_thread(flown: Iterator[Flight]) -> AsyncGenerator[Flight, None]:
    """Each flight, made in a thread: it takes a processor a while, and connections must go on."""
    while (one := await asyncio.to_thread(next, flown, None)) is not None:
        yield one


async def _main(positions: int, days: int, after: int, seed: int) -> None:
    season = await asyncio.to_thread(new_season, positions, days, seed)
    console = Console()
    async with mqinfer.connect(app) as client:
        with Progress(console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task("photographs", total=len(season))
            count = await fly(client, flights(season, after), lambda: progress.advance(bar))
    console.print(f"published {count} photographs of {positions} positions on {days} days")


def main() -> int:
    """Fly one season with the settings of the environment."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.plants.fleet",
        description="Make a season of drone photographs, upload and publish them.",
    )
    parser.add_argument("--positions", type=_count, default=20, help="half of them get medicine")
    parser.add_argument("--days", type=_count, default=11)
    parser.add_argument("--after", type=_days, default=0, help="days that were flown before")
    parser.add_argument("--seed", type=int, default=7, help="of everything that is drawn")
    options = parser.parse_args()
    try:
        asyncio.run(_main(options.positions, options.days, options.after, options.seed))
    except (MqinferError, MaterialsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _count(text: str) -> int:
    return _between(text, 1)


def _days(text: str) -> int:
    return _between(text, 0)


def _between(text: str, least: int) -> int:
    number = int(text)
    if not least <= number <= 1000:
        raise argparse.ArgumentTypeError(f"{number} is not in {least} to 1000")
    return number


if __name__ == "__main__":
    sys.exit(main())
