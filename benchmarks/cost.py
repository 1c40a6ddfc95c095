"""cost: what each capability adds to a message, in one run beside the plain stage."""

from __future__ import annotations

import logging

import numpy as np
import structlog

from benchmarks import tiny
from benchmarks.results import Figure, Options, Result, Row
from mqinfer import App, Blob, Message, Reject, State
from mqinfer import Row as TableRow
from mqinfer.bench.feed import Feeder, Template
from mqinfer.bench.windows import Room
from mqinfer.settings import Settings
from mqinfer.stack import Stack, StackSettings

SIZE = 200  # bytes of a message's text
PICTURE = 100_000  # bytes of a blob
MESSAGES = 10_000
LIMIT = 120.0  # seconds for one measurement


class Item(Message, subject="item"):
    """Something small."""

    n: int
    text: str


class InOrder(Message, subject="in_order", key="n", ordered=True):
    """The same, in order by key."""

    n: int
    text: str


class Count(State):
    """What is remembered of a key."""

    count: int = 0


class Picture(Message, subject="picture"):
    """What has its bytes in the blob store."""

    n: int
    image: Blob


class Out(Message, subject="out"):
    """What becomes of them."""

    n: int
    text: str


class Measurement(TableRow, table="measurement", order_by=("n",)):
    """A row of the table."""

    n: int
    text: str


class Single(TableRow, table="single", order_by=("n",), pack=False):
    """The same, each a message of its own."""

    n: int
    text: str


def pipeline() -> App:
    """A stage for each capability, each of which does no more than that."""
    app = App("cost", partitions=8)
    affine = app.model(tiny.NAME)

    @app.stage
    async def plain(item: Item) -> Out:
        return Out(item.n, item.text)

    @app.stage
    async def silent(item: Item) -> None:
        """Give nothing back."""

    @app.stage
    async def two(item: Item) -> list[Out]:
        return [Out(item.n, item.text), Out(-item.n, item.text)]

    @app.stage
    async def ordered(item: InOrder) -> Out:
        return Out(item.n, item.text)

    @app.stage
    async def remembering(item: InOrder, state: Count) -> Out:
        state.count += 1
        return Out(item.n, item.text)

    @app.stage
    def thread(item: Item) -> Out:
        return Out(item.n, item.text)

    @app.stage
    async def model(item: Item) -> Out:
        await affine(x=np.array([item.n], np.float32))
        return Out(item.n, item.text)

    @app.stage
    async def reading(picture: Picture) -> Out:
        return Out(picture.n, str(len(await picture.image.bytes())))

    @app.stage
    async def storing(item: Item) -> Picture:
        return Picture(item.n, Blob(bytes(PICTURE), path=f"p/{item.n}"))

    @app.stage
    async def dead(item: Item) -> Out:
        raise Reject(f"not {item.n}")

    @app.stage
    async def row(item: Item) -> Measurement:
        return Measurement(item.n, item.text)

    @app.stage
    async def single(item: Item) -> Single:
        return Single(item.n, item.text)

    return app


# The row of the table, the stage, and messages in one measurement, of `MESSAGES`.
ROWS = (
    ("plain: one message in, one out", "plain", 1.0),
    ("no output", "silent", 1.0),
    ("a second output", "two", 1.0),
    ("ordered, 8 partitions", "ordered", 1.0),
    ("ordered with state, 200 keys", "remembering", 0.5),
    ("a plain def, in a thread", "thread", 1.0),
    ("a model call, gathered", "model", 1.0),
    ("a blob of 100 kB read from a folder", "reading", 0.2),
    ("a blob of 100 kB stored in a folder", "storing", 0.1),
    ("ends as a dead letter", "dead", 0.5),
    ("a row instead of a message", "row", 1.0),
    ("that row into its table (the sink)", "sink-measurement", 4.0),
    ("a row that is a message (pack=False)", "single", 1.0),
    ("that single row into its table", "sink-single", 4.0),
)


async def measure(options: Options) -> Result:
    """Each stage alone, in turns."""
    models = options.folder / "models"
    tiny.build_repository(models)
    samples: dict[str, list[tuple[float, float]]] = {name: [] for _, name, _ in ROWS}
    wanted = StackSettings.free_ports(options.folder / "stack", models=models)
    # A line in the log for each dead letter would be the most of its cost.
    log = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        await _measure(options, wanted, samples)
    finally:
        structlog.configure(**log)
    plain = [used for _, used in samples["plain"]]
    rows = [
        Row(
            title,
            {
                "messages/s": Figure(tuple(rate for rate, _ in samples[name]), "messages/s"),
                "processor µs": Figure(tuple(used for _, used in samples[name]), "µs"),
                "beside plain": Figure(
                    tuple(
                        used - base for (_, used), base in zip(samples[name], plain, strict=True)
                    ),
                    "µs",
                ),
            },
        )
        for title, name, _ in ROWS
    ]
    return Result(
        "cost",
        f"what a message costs its worker, {SIZE} B of text",
        rows,
        notes=[
            "Processor time of the worker's process, its start not counted; the servers' is not in "
            "it, nor are lines in the log. Each stage is alone with messages waiting. "
            "Handlers are timed as `mqinfer bench` does, which adds the same to each row.",
        ],
    )


async def _measure(
    options: Options, wanted: StackSettings, samples: dict[str, list[tuple[float, float]]]
) -> None:
    async with Stack(wanted) as stack:
        settings = Settings.load(stack.environment())
        async with Feeder(settings.nats_url) as feeder:
            room = Room(pipeline(), settings, None, feeder)
            templates = await _templates(room)
            # What is loaded and made at first.
            for name in ("plain", "model", "sink-measurement", "sink-single"):
                await _one(room, name, templates[name], 100)
            for _ in range(options.repeat):
                for _, name, share in ROWS:
                    count = options.amount(int(MESSAGES * share))
                    samples[name].append(await _one(room, name, templates[name], count))
                options.say(f"plain: {samples['plain'][-1][1]:.0f} us a message")


async def _templates(room: Room) -> dict[str, list[Template]]:
    """What each stage reads."""
    text = "x" * SIZE
    made: dict[type[Message], list[Template]] = {}
    for kind, messages in (
        (Item, [Item(n, text) for n in range(200)]),
        (InOrder, [InOrder(n, text) for n in range(200)]),
        (Picture, [Picture(n, Blob(bytes(PICTURE), path=f"q/{n}")) for n in range(20)]),
        (Measurement, [Measurement(n, text) for n in range(200)]),
        (Single, [Single(n, text) for n in range(200)]),
    ):
        await room.publish(messages)
        made[kind] = await room.templates(kind)
    async with room.working(None):  # consumers and tables are made
        pass
    found = {name: made[stage.reads] for name, stage in room.app.stages.items()}
    return {**found, "sink-measurement": made[Measurement], "sink-single": made[Single]}


async def _one(room: Room, name: str, templates: list[Template], count: int) -> tuple[float, float]:
    """Messages a second (of a sink, rows), and microseconds of processor for each."""
    rows = sum(one.rows for one in templates) / len(templates)
    messages = max(1, round(count / rows))
    await room.purge()
    await room.feed(templates, messages)
    async with room.working([name]) as working:
        window = await working.until_done(name, messages, LIMIT)
    of = window.stages[name]
    if of.done + of.dead < messages / 2:
        raise RuntimeError(f"{name}: {of.done + of.dead} of {messages} were seen to be handled")
    handled = (of.done + of.dead) * rows
    return handled / window.seconds, 1e6 * window.process / handled
