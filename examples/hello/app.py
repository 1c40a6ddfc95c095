"""Two stages: a text becomes words, a word becomes a row. No models, no pictures."""

from collections.abc import AsyncIterator

from mqinfer import App, Message, Row

app = App("hello")


class Text(Message):
    body: str


class Word(Message):
    word: str


class Length(Row, table="length", order_by="word"):
    word: str
    letters: int


@app.stage
async def split(text: Text) -> AsyncIterator[Word]:
    for word in text.body.split():
        yield Word(word)


@app.stage
async def measure(word: Word) -> Length:
    return Length(word.word, len(word.word))
