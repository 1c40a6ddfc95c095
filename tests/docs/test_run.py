"""Commands of README and docs are run as they are typed; what is not is named here, with why."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
from onnx import TensorProto, helper

from mqinfer import App, plan, signals
from mqinfer.cli.load import load_app
from mqinfer.settings import Settings
from mqinfer.stack.triton import TritonServer
from mqinfer.testing import Harness, until
from tests.docs.pages import PAGES, ROOT, Line, commands, shortened
from tests.docs.test_commands import ALONE, refused
from tests.docs.test_examples import source
from tests.support import models
from tests.support.triton import own_server

Told = Callable[..., Awaitable[str]]

TUTORIAL = "docs/tutorial.md"  # all of it is typed in test_tutorial.py
# By the reason in a word; what a command begins with, or a pattern that it matches.
NOT_RUN = {
    "endless": (
        r"mqinfer (up|console|gateway(?!.*--new-key)|index \S+ serve)\b",
        r"mqinfer worker\b(?!.*--(drain|run rust2))",
        r"mqinfer (monitor|state)\b.*--watch\b",
        r"mqinfer deploy apply",
    ),
    "alone": (rf"mqinfer ({'|'.join(set(ALONE) - {'check'})})\b", r"mqinfer check .*--offline"),
    "tutorial": (r"mqinfer (init|publish app:app)",),
    "person": (r"mqinfer shell app:app$",),
    "minutes": (r"mqinfer bench",),
    "packages": (r"mqinfer models pack (iris:|mood\.py|net\.pt|mlruns|models\.toml)",),
    "catalogue": (r"mqinfer job submit models\.toml",),  # tests/catalog
    "days": (r"mqinfer monitor (accept|acknowledge|mute)",),  # of rows: tests/cli/test_monitor.py
    "holders": (r"mqinfer index ",),  # tests/search
    "vectors": (r"mqinfer replay album:app",),  # tests/dedup
    "make": (r"make ",),
}
# A stage that refuses, a row, and nothing else: what the pages about any app speak of.
JUDGE = """
from mqinfer import App, Message, Reject, Row

app = App("judging")


class Review(Message):
    id: str
    text: str


class Verdict(Row, table="judged", order_by="review"):
    review: str


@app.stage
async def judge(review: Review) -> Verdict:
    if not review.text:
        raise Reject("no text")
    return Verdict(review.id)
"""


@dataclasses.dataclass(frozen=True)
class World:
    """An app that pages speak of.

    Attributes:
        app: its source, or the capability whose example it is.
        pages: whose commands are run, in this order.
        published: a message, as its subject and JSON.
        codes: exit codes other than 0, by what the command begins with.
        before: commands that a command needs to be run before, by what it begins with.
    """

    app: str
    pages: tuple[str, ...]
    published: tuple[tuple[str, str], ...] = ()
    codes: dict[str, int] = dataclasses.field(default_factory=dict)
    before: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


def of(names: str) -> tuple[str, ...]:
    """The pages of these names."""
    return tuple(f"docs/{name}.md" for name in names.split())


WORLDS = {
    "plants": World(
        "shadows and canaries",
        (*of("production tables gateway monitor replay models deploy"), "README.md"),
        tuple(("leaf", f'{{"position": "p{n}", "rust": {n}}}') for n in range(4)),
        codes={"mqinfer deploy diff": 1},
        before={
            "mqinfer models plants:app --shadow": ("models plants:app --set grade_rust@live=1",),
            "mqinfer models plants:app --no-canary": ("models plants:app --canary grade_rust=1",),
        },
    ),
    "app": World(
        JUDGE,
        of("errors debugging upgrading testing working"),
        (("review", '{"id": "a", "text": ""}'), ("review", '{"id": "b", "text": "good"}')),
    ),
    "field": World(
        "state",
        of("state"),
        (("grade", '{"position": "p17", "day": "2026-05-01", "grade": 1}'),),
    ),
    "irises": World("jobs", of("jobs")),
    "grading": World("requests", of("requests joins")),
    "garden": World("timers", of("timers")),
    "shop": World(
        "deleting",
        of("deleting"),
        (
            ("photo", '{"person": "p17", "sharp": true}'),
            ("photo", '{"person": "p17", "sharp": false}'),
        ),
    ),
}


def typed(page: str) -> Iterator[Line]:
    """The commands of a page that a reader can type: in blocks, and in its text those in full."""
    for line in commands(page):
        words = set(line.text.split())
        gaps = {word for word in words if re.fullmatch(r"[A-Z]+", word)} - {"APP"}
        whole = not gaps and ("APP" in words or ":app" in line.text)
        if not line.inline or (whole and refused(line) is None):
            yield line


def why_not(line: Line) -> str | None:
    """Why a command is not run here."""
    for reason, patterns in NOT_RUN.items():
        if any(re.match(pattern, line.text) for pattern in patterns):
            return reason
    return None


def spelt(text: str) -> Iterator[str]:
    """Each command that a line stands for: `a|b` is two, and so is `[--errors]`."""
    parts = [
        ["", word[1:-1]] if word.startswith("[") else word.split("|") if "|" in word else [word]
        for word in shlex.split(text, comments=True)
    ]
    for words in product(*parts):
        yield shlex.join(word for word in words if word)


def test_what_is_not_run_is_named() -> None:
    run = {page for world in WORLDS.values() for page in world.pages} | {TUTORIAL}
    lines = [
        line
        for page in PAGES
        if page == "README.md" or page.startswith("docs/")
        for line in typed(page)
    ]
    missed = [line for line in lines if line.page not in run and why_not(line) is None]
    assert missed == [], "neither run nor in NOT_RUN"
    patterns = [pattern for found in NOT_RUN.values() for pattern in found]
    idle = [one for one in patterns if not any(re.match(one, line.text) for line in lines)]
    assert idle == [], "no page has such a command"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server of the grader in two versions."""
    folder = tmp_path_factory.mktemp("server")
    for version, factor in (("1", 1.0), ("2", 2.0)):
        nodes = [
            helper.make_node("Mul", ["rust", "factor"], ["much"]),
            helper.make_node("Cast", ["much"], ["grade"], to=TensorProto.INT64),
        ]
        rust = models.tensor("rust", TensorProto.FLOAT, ["n", 1])
        grade = models.tensor("grade", TensorProto.INT64, ["n", 1])
        made = models.graph("grade_rust", nodes, [rust], [grade], factor=[factor])
        models.save(folder / "models", version, made)
    with own_server(folder, folder / "models") as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the commands are typed; what was imported from there is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name, found in list(sys.modules.items()):
        if Path(getattr(found, "__file__", None) or "/").parent == tmp_path:
            del sys.modules[name]


@pytest.fixture
def stored(nats: Settings, url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """NATS and ClickHouse, for this process and for the commands."""
    monkeypatch.setenv("MQINFER_CLICKHOUSE_URL", url)
    monkeypatch.setenv("MQINFER_BLOBS", str(nats.blobs))

    def ignored(*_: object) -> None:
        """What only the main thread may do, and commands run in another one here."""

    monkeypatch.setattr(signals, "signal", SimpleNamespace(signal=ignored, getsignal=ignored))
    return dataclasses.replace(nats, clickhouse_url=url)


def made(folder: Path, name: str) -> App:
    """The app of a world, in a module of its name."""
    app = WORLDS[name].app
    (folder / f"{name}.py").write_text(app if "\n" in app else source(app)[1])
    return load_app(f"{name}:app")


@pytest.mark.parametrize("name", [name for name in WORLDS if name != "plants"])
async def test_the_commands_of_a_page_are_run(
    name: str, folder: Path, stored: Settings, told: Told
) -> None:
    (folder / "irises.csv").write_text("petal_length,petal_width\n1.4,0.2\n-1,0.2\n")
    app = made(folder, name)
    async with Harness(app, stored) as harness:
        await tour(harness, name, told)


async def test_the_commands_about_the_plants_are_run(
    server: TritonServer,
    folder: Path,
    stored: Settings,
    told: Told,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copy(server.models / "grade_rust" / "1" / "model.onnx", folder / "leaves.onnx")
    shutil.copy(ROOT / "examples/hello/deploy.toml", folder)
    (folder / "labelled.csv").write_text("position,truth\np1,1\np2,3\n")
    monkeypatch.setenv("MQINFER_TRITON_URL", server.url)
    settings = dataclasses.replace(stored, triton_url=server.url)
    async with Harness(made(folder, "plants"), settings) as harness:
        await told("models", "plants:app", "--set", "grade_rust@live=1")
        await tour(harness, "plants", told)


async def tour(harness: Harness, name: str, told: Told) -> None:
    """Type all that the pages of a world say, beside a worker that has done its messages."""
    world, fill = WORLDS[name], {"APP": f"{name}:app"}
    lines = [line for page in world.pages for line in typed(page) if why_not(line) is None]
    last = [line for line in lines if line.text.startswith("mqinfer reset")]  # no worker may run
    async with harness.worker():
        for subject, payload in world.published:
            await harness.publish_bytes(f"{harness.app.name}.{subject}", payload.encode())
        await settled(harness)
        for line in lines:
            if line not in last:
                if "17" in line.text.split():  # the number of a letter
                    fill["17"] = str((await until(harness.dead, "a letter"))[-1].sequence)
                await type_in(told, world, line, fill)
    for line in last:
        await type_in(told, world, line, fill)


async def settled(harness: Harness) -> None:
    """What was published is done, and its rows are stored."""
    names = [task.name for task in plan.tasks(harness.app)]

    async def done() -> bool:
        return not any([await harness.lag(name) > 0 for name in names])

    await until(done, "everything done")


async def type_in(told: Told, world: World, line: Line, fill: dict[str, str]) -> None:
    """Run a command, and what has to come before it."""
    least = [*shortened(line.text)][::-1]  # what explains a command may be words that it takes
    text = next(
        (shlex.join(one) for one in least if refused(Line("", shlex.join(one))) is None), line.text
    )
    for one in spelt(text):
        for begins, needed in world.before.items():
            if one.startswith(begins):
                for first in needed:
                    await told(*shlex.split(first))
        code = next((code for begin, code in world.codes.items() if one.startswith(begin)), 0)
        if one.startswith("mqinfer replay"):  # the name of a run is used once
            fill["rust1"] = fill.get("rust2", "rust1")
            fill["rust2"] = f"{fill['rust1']}_next"
        asked = [fill.get(word, word) for word in shlex.split(one)[1:]]
        said = await told(*asked, *(["--yes"] if asked[0] == "reset" else []), code=code)
        if "submit" in asked:
            (fill["ID"],) = re.findall(r"job-\S+", said)[:1]
