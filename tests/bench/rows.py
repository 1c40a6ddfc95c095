"""A pipeline for the tests of the bench: rows that travel packed, and some that do not."""

from mqinfer import App, Message, Row

app = App("benchedrows")


class Plate(Message):
    n: int


class Well(Row, table="well", order_by=("plate", "n")):
    plate: int
    n: int


class Label(Row, table="label", order_by=("plate",), pack=False):
    plate: int


@app.stage
async def count(plate: Plate) -> list[Well]:
    return [Well(plate.n, number) for number in range(5)]


@app.stage
async def name(plate: Plate) -> Label:
    return Label(plate.n)
