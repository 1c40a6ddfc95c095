"""What type checkers say of a user's app: nothing of a right one, and a word on each wrong line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rooms import PACKAGE, ROOT

README = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)

SHAPES = """
import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

from mqinfer import (
    App, Backoff, Blob, Column, Confidence, Context, Embedding, Input, Label, Message, Reject,
    Rejected, Retry, Row, State, Tensor, Worker, connect,
)
from mqinfer.errors import PublishTimeout
from mqinfer.testing import Harness, nats_only, until

class In(Message, subject="some.in", key="name", ordered=True, wire="msgpack"):
    name: str
    size: int = 0

class Picture(Message, kw_only=True, omit_defaults=True):
    name: str = ""
    image: Blob

class Out(Row, table="outs", order_by=("name", "size")):
    name: str
    size: Annotated[int, Column("UInt8")]

class Watched(Row, table="watched", kw_only=True):
    label: Annotated[str | None, Label(model="grader")]
    sure: Annotated[float, Confidence(of="label"), Column("Float32")] = 0.0
    width: Annotated[int, Input()] = 0
    vector: Annotated[list[float], Embedding()] = []

@asynccontextmanager
async def process() -> AsyncGenerator[None, None]:
    yield

@asynccontextmanager
async def factor() -> AsyncGenerator[int, None]:
    yield 3

app = App("shapes", max_age="1d", max_bytes="1GB", partitions=4, lifespan=process)
model = app.model("grader", alias="live", version=2, inputs={"image": Tensor("UINT8", (-1, 3))})

@app.stage
async def one(message: In) -> Out | None:
    return Out(message.name, message.size) if message.size else None

@app.stage
async def many(message: In) -> AsyncIterator[Out | Picture]:
    yield Out(name=message.name, size=1)
    yield Picture(image=Blob(b"png", path="a/b.png"))

@app.stage(concurrency=2, batch_wait="50ms", max_bytes="16MB", max_downstream=None)
def plain(message: In) -> Iterator[Out]:
    yield Out(message.name, 2)

@app.stage(batch_size=64, models=[model], backoff=Backoff(initial=1.0))
async def batch(messages: list[In]) -> list[Out | Rejected | None]:
    return [Out(m.name, m.size) if m.size else Rejected("no size") for m in messages]

@app.stage
def plain_batch(messages: Sequence[In], contexts: list[Context]) -> list[Out]:
    return [Out(c.id, m.size) for m, c in zip(messages, contexts)]

class Kept(State, ttl="90d", name="what was kept"):
    worst: int = 0
    names: list[str] = []

@app.stage
async def remembers(message: In, kept: Kept, ctx: Context) -> Out | None:
    kept.worst = max(kept.worst, message.size)
    kept.names.append(ctx.id)
    return Out(message.name, kept.worst)

@app.stage
async def remember(messages: list[In], kept: list[Kept]) -> list[Out]:
    return [Out(m.name, k.worst) for m, k in zip(messages, kept)]

@app.stage(name="told", timeout="2m", ack_wait=10, attempts=3, max_in_flight=64, lifespan=factor)
async def told(message: Picture, ctx: Context) -> None:
    ctx.log.info("handling", attempt=ctx.attempt)
    ctx.progress()
    pixels = await message.image.pixels(target=224)
    found = await model(image=pixels)
    height: int = pixels.shape[0]
    if found.version == "1" or height < 10:
        raise Retry("not yet", after=5)
    raise Reject("never")

asked = app.endpoint("asked", In, answers=Out, deadline="1m", keep="1h")
both = app.endpoint("both", In, answers=(Out, Picture))

async def handlers_are_functions(message: In) -> int:
    first: Out | None = await one(message)
    async for out in many(message):
        print(out)
    answers: list[Out | Rejected | None] = await batch([message])
    await remembers(message, Kept(worst=3), Context(id="a", stage="remembers", sequence=1))
    for row in plain(message):
        print(row.size + 1)
    return first.size if first is not None else len(answers)

async def library() -> str:
    async with connect(app) as client:
        try:
            identity: str = await client.publish(In("a"), id="a", timeout=5)
        except PublishTimeout:
            identity = ""
        kept: Kept | None = await client.state("remembers", "a", Kept)
        any_kept = await client.states("remembers")
        print(kept.worst if kept else any_kept.keys())
        identities = await client.publish_all([In("b"), Picture(image=Blob.at("a.png"))])
        await client.blobs.put("a.png", b"png")
        request = await client.request(In("a"), endpoint=asked, wait=10, key="a")
        outs: tuple[Out, ...] = await request.result(wait=1)
        async for event in request:
            print(event.kind, event.answer.size if event.answer is not None else outs)
        for answer in (await client.request(In("a"), endpoint=both)).answers:
            print(answer.name if isinstance(answer, Picture) else answer)
        named = await client.request(In("a"), endpoint="asked")
        print(named.status, (await client.get_request(named.id)).errors)
    worker = Worker(app, stages=["one"], drain=True)
    await worker.run()
    return identity + identities[0]

async def test() -> None:
    from pathlib import Path

    async with nats_only(Path()) as settings, Harness(app, settings) as harness:
        await harness.publish(In("a"))
        async with harness.worker("one") as worker:
            ready: bool = await until(lambda: not worker.not_ready())
            lag: int = await until(lambda: harness.lag("one"), "work", timeout=5)
            print(ready, lag)
        outs: list[Out] = await harness.messages(Out)
        assert outs == [Out("a", 1)]

asyncio.run(library())
"""

# "wrong": both complain about this line; "wrong for pyright": mypy does not look at class keywords
# where there is a metaclass. Pyright's standard mode says only why, not also what follows from it.
MISTAKES = """# pyright: standard
from typing import Annotated

from mqinfer import App, Context, Label, Message, Row, State, Worker, connect

class In(Message, key="name"):
    name: str
    size: int = 0

class Out(Row):
    name: str

class Misspelt(Message, ky="name"):  # wrong for pyright
    name: str

class Kept(State, tll="90d"):  # wrong for pyright
    worst: int = 0

class Mistyped(Message, ordered="yes"):  # wrong for pyright
    name: str

class Watched(Row):
    label: Annotated[str, Label(modle="grader")]  # wrong for pyright

app = App("mistakes", replica=3)  # wrong
app.model("grader", versoin=2)  # wrong
graded = app.endpoint("grade", In, answers=Out)
app.endpoint("other", In, answers="Out")  # wrong
model = app.model("grader")

@app.stage(timout=5)  # wrong
async def misspelt(message: In) -> None: ...

@app.stage(attempts="5")  # wrong
async def mistyped(message: In) -> None: ...

@app.stage(backoff=2.0)  # wrong
async def no_backoff(message: In) -> None: ...

@app.stage(timeout=None)  # wrong
async def no_timeout(message: In) -> None: ...

@app.stage(attempts=3)
async def crop(message: In, ctx: Context) -> Out | None:
    message.size = 3  # wrong
    ctx.lgo.info("handling")  # wrong
    return Out(7)  # wrong

@app.stage
async def remember(message: In, kept: Kept) -> None:
    kept.worst = "a"  # wrong
    kept.wrost = 3  # wrong

@app.stage
async def grade(message: In) -> Out:
    In("a", sise=3)  # wrong
    In()  # wrong
    return In("a")  # wrong

async def use(message: In) -> None:
    name: str = await grade(message)  # wrong
    out = await grade(message)
    out.size  # wrong
    await grade("a")  # wrong
    async with connect(app) as client:
        await client.publish("a")  # wrong
        await client.publish(message, timeout="5s")  # wrong
        await client.publish_all([{"name": "a"}])  # wrong
        number: int = await client.publish(message)  # wrong
        kept: int = await client.state("remember", "a", Kept)  # wrong
        request = await client.request(message, endpoint=graded)
        answers: tuple[In, ...] = await request.result()  # wrong
    await Worker(app, stage=["crop"]).run()  # wrong
    await model(image="a.png")  # wrong
"""

CUT = """
from typing import Any

def cut(pixels: Any, box: Any) -> bytes:
    return b""

"""

APPS = {"readme.py": CUT + README[0], "shapes.py": SHAPES, "mistakes.py": MISTAKES}

# File -> line -> what was said of it.
Found = dict[str, dict[int, str]]


def run_mypy(folder: Path) -> Found:
    """What `mypy --strict` says of the user's files."""
    (folder / "mypy.ini").write_text("[mypy]\n")  # not ours
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--no-error-summary"),
            *("--config-file", "mypy.ini", "--cache-dir", "cache", *APPS),
        ],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert not done.stderr, done.stderr
    found: Found = {}
    for line in done.stdout.splitlines():
        # Of mqinfer itself, which a user's mypy finds installed, `make lint` is told.
        if told := re.match(r"(\w+\.py):(\d+): error: (.*)", line):
            found.setdefault(told[1], {}).setdefault(int(told[2]), told[3])
    return found


def run_pyright(folder: Path) -> Found:
    """What pyright says of the user's files in its strict mode, if they name no other."""
    config = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pyright", "--outputjson"),
            *("--pythonpath", sys.executable, "--project", str(folder)),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    try:
        report = json.loads(done.stdout)
    except ValueError:
        pytest.fail(
            "pyright cannot be run: install the extra `dev` (pyright[nodejs] carries all it "
            f"needs). It said: {done.stdout}{done.stderr}"
        )
    assert report["summary"]["filesAnalyzed"] == len(APPS), report
    found: Found = {}
    for told in report["generalDiagnostics"]:
        if told["severity"] != "error":
            continue
        line = told["range"]["start"]["line"] + 1
        found.setdefault(Path(told["file"]).name, {}).setdefault(line, told["message"])
    return found


@pytest.fixture(scope="module", params=[run_mypy, run_pyright], ids=["mypy", "pyright"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What one type checker says of all files; it is started once."""
    folder = tmp_path_factory.mktemp("user")
    for name, text in APPS.items():
        (folder / name).write_text(text)
    told: Found = request.param(folder)
    return told


@pytest.mark.parametrize("name", ["readme.py", "shapes.py"])
def test_an_app_is_accepted(found: Found, name: str) -> None:
    assert found.get(name, {}) == {}


def test_each_mistake_is_seen_and_nothing_else(
    found: Found, request: pytest.FixtureRequest
) -> None:
    marks = ["# wrong"]
    if "pyright" in request.node.name:
        marks.append("# wrong for pyright")
    wrong = {
        number
        for number, line in enumerate(MISTAKES.splitlines(), 1)
        if line.endswith(tuple(f"  {mark}" for mark in marks))
    }
    assert found["mistakes.py"].keys() == wrong, found["mistakes.py"]


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
