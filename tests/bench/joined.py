"""A pipeline with what mqinfer feeds by itself: a join, its deadline, and a clock."""

from mqinfer import App, Context, Message, Tick

app = App("benched-joined")


class Photo(Message):
    name: str


class Part(Message):
    number: int


class Report(Message):
    parts: int


@app.stage
async def cut(photo: Photo) -> list[Part]:
    return [Part(number) for number in range(3)]


@app.stage
async def look(part: Part) -> None:
    """Read a part."""


@app.join(Photo, of=Part, deadline="1h")
async def report(photo: Photo, parts: list[Part], ctx: Context) -> Report:
    return Report(len(parts))


@app.stage
async def tell(report: Report) -> None:
    """Read a report."""


@app.every("1s", catch_up="none")
async def tick(tick: Tick) -> None:
    raise AssertionError("no part of the flood")
