"""`mqinfer check`: each problem in one line that names the stage, and nothing is changed."""

import asyncio
from typing import Any

import numpy as np
import pytest

from mqinfer import wiring
from mqinfer.adapters import admin
from mqinfer.cli.load import load_app
from mqinfer.errors import ModelUnavailable, Unavailable
from mqinfer.inference.callsites import model_calls
from mqinfer.operate.check import Report, check_models, check_wiring, gather
from mqinfer.ports import ModelInfo, ModelReply, TensorInfo
from mqinfer.settings import Settings
from tests.support.cli import Shell

HEAD = """
from __future__ import annotations
from mqinfer import App, Message, Row, Tensor

app = App("{name}")

class Word(Message, subject="word"):
    text: str
"""


class Server:
    """An inference server with two models."""

    def __init__(self, down: bool = False):
        self.down = down

    async def describe(self, model: str, version: str | None = None) -> ModelInfo:
        if self.down:
            raise Unavailable("triton at host:1: connection refused")
        if model not in ("leaf_detector", "text") or version == "9":
            raise ModelUnavailable(f"model {model} is not ready at host:1")
        if model == "text":
            inputs = (
                TensorInfo("words", np.dtype(object), (-1,)),
                TensorInfo("limit", np.dtype("int32"), (1,), optional=True),
            )
        else:
            inputs = (TensorInfo("image", np.dtype("uint8"), (-1, -1, 3)),)
        return ModelInfo(model, ("1",), inputs, (), 8)

    async def infer(self, *_: Any, **__: Any) -> ModelReply:
        raise NotImplementedError

    async def ready(self) -> None: ...

    async def reload(self, model: str) -> None: ...

    async def close(self) -> None: ...


def problems(shell: Shell, source: str, server: Server | None = None) -> list[str]:
    app = load_app(shell.write(HEAD + source))
    report, stages = check_wiring(app)
    asyncio.run(check_models(stages, server or Server(), report))
    assert not any("\n" in problem for problem in report.problems)
    return report.problems


def stage(body: str, before: str = "") -> str:
    return f"""
{before}
@app.stage
async def crop(word: Word) -> None:
    {body}
"""


DETECTOR = 'detector = app.model("leaf_detector")'


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (stage("await detector(image=1)", DETECTOR), None),
        (stage("await detector(**word.text)", DETECTOR), None),
        (
            stage("await detector(img=1)", DETECTOR),
            "stage crop: model leaf_detector has no input 'img'; it has 'image' (",
        ),
        (stage("await detector()", DETECTOR), "its input 'image' is not given"),
        (stage("await detector(word)", DETECTOR), "called without input names"),
        (
            stage("await nope(x=1)", 'nope = app.model("nope")'),
            "stage crop: model nope is not ready",
        ),
        (
            stage("await pinned(image=1)", 'pinned = app.model("leaf_detector", version=9)'),
            "stage crop: model leaf_detector is not ready",
        ),
        (stage("await text(words=1)", 'text = app.model("text")'), None),
        (stage("await text(words=1, limit=2)", 'text = app.model("text")'), None),
        # Through a container, a loop, an alias, a helper of the module, an attribute.
        (
            stage("await all_['a'](b=1)", 'all_ = {"a": app.model("leaf_detector")}'),
            "no input 'b'",
        ),
        (
            stage(
                "for _, model in all_.items():\n        await model(b=1)",
                'all_ = {"a": app.model("leaf_detector")}',
            ),
            "no input 'b'",
        ),
        (stage("one = detector; await one(b=1)", DETECTOR), "no input 'b'"),
        (
            stage("await help(word)", DETECTOR + "\nasync def help(x): await detector(b=1)"),
            "no input 'b'",
        ),
        (
            stage("await Models.one(b=1)", 'class Models: one = app.model("leaf_detector")'),
            None,  # not found by what looks for models, so it is not judged
        ),
    ],
)
def test_calls_in_the_code(source: str, says: str | None, shell: Shell) -> None:
    found = problems(shell, source)
    if says is None:
        assert found == []
    else:
        (problem,) = found
        assert problem.startswith("stage crop: ")
        assert says in problem


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ('"image": Tensor("uint8", (480, 640, 3))', None),
        ('"image": Tensor("uint8", (-1, -1, 3))', None),
        (
            '"image": Tensor("float32", (480, 640, 3))',
            "stage crop: model leaf_detector, input 'image': the dtype does not fit: float32 "
            "(480, 640, 3) is declared, the model wants uint8 (-1, -1, 3)",
        ),
        ('"image": Tensor("uint8", (480, 640))', "the shape does not fit"),
        ('"image": Tensor("uint8", (480, 640, 4))', "the shape does not fit"),
        ('"image": Tensor("uint8", (-1, -1, -1))', "the shape does not fit"),
        ('"image": Tensor("oops", (1, 1, 3))', "dtype 'oops' is none that NumPy knows"),
    ],
)
def test_declared_tensors(declared: str, says: str | None, shell: Shell) -> None:
    before = f'detector = app.model("leaf_detector", inputs={{{declared}}})'
    found = problems(shell, stage("await detector(image=1)", before))
    if says is None:
        assert found == []
    else:
        assert len(found) == 1
        assert says in found[0]


def test_strings_and_wrong_names_that_are_declared(shell: Shell) -> None:
    good = 'text = app.model("text", inputs={"words": Tensor("string", (5,))})'
    assert problems(shell, stage("await text(words=1)", good)) == []
    wrong = 'text = app.model("text", inputs={"word": Tensor("string", (5,))})'
    found = problems(shell, stage("await text(words=1)", wrong))
    assert "stage crop: model text has no input 'word'; it has 'words', 'limit'" in found


def test_models_that_the_code_does_not_show(shell: Shell) -> None:
    source = """
hidden = app.model("nope")

@app.stage(models=(hidden,))
async def crop(word: Word) -> None:
    pass
"""
    assert problems(shell, source) == ["stage crop: model nope is not ready at host:1"]


def test_a_server_that_is_down_is_one_problem(shell: Shell) -> None:
    source = stage("await detector(image=1); await text(words=1)", DETECTOR)
    source = source.replace("detector =", 'text = app.model("text"); detector =')
    assert problems(shell, source, Server(down=True)) == [
        "Triton (needed by stage crop): at host:1: connection refused"
    ]


def test_handlers_without_source_are_not_judged() -> None:
    names: dict[str, Any] = {}
    exec("async def handler(x): return x", names)
    assert list(model_calls(names["handler"])) == []


WRONG = """
class A(Row, table="grades", order_by=("x",)):
    x: str

class B(Row, table="grades"):
    x: str

class C(Row, table="complex_one"):
    x: set[str] | None

@app.stage
async def one(word: Word) -> A | C:
    return A("")

@app.stage
async def two(word: Word) -> B:
    return B("")

@app.stage
async def three(word: Word) -> int:
    return 1

@app.stage
async def four(word: Nowhere) -> None:
    pass

@app.stage
async def five(word: Word):
    pass
"""


def test_wiring(shell: Shell) -> None:
    code, out, _ = shell.run("check", shell.write(HEAD + WRONG), "--offline")
    assert code == 1
    assert out.count("\n") == 5
    assert "problem  stage three: returns int, which is no Message or Row" in out
    assert "problem  stage four: an annotation names 'Nowhere', which is not defined" in out
    assert "problem  stage five: annotate what it returns" in out
    assert "problem  stage two: B and A (stage one) both have table 'grades'" in out
    assert "problem  stage one: table complex_one" in out


def test_servers_that_do_not_answer(shell: Shell) -> None:
    source = HEAD + stage("await detector(image=1)", DETECTOR)
    source += (
        "\nclass Grade(Row, table='grade'):\n    x: str\n"
        "@app.stage\nasync def grade(word: Word) -> Grade:\n    return Grade('')\n"
    )
    code, out, _ = shell.run("check", shell.write(source))
    assert code == 1
    lines = out.splitlines()
    assert lines[0].startswith("ok       wiring of 2 stages: crop, grade")
    assert any(line.startswith("problem  NATS") and "127.0.0.1:1" in line for line in lines)
    assert any(line.startswith("problem  Triton (needed by stage crop): at") for line in lines)
    assert any(
        line.startswith("problem  ClickHouse (needed by stage sink-grade): at") for line in lines
    )
    assert len(lines) == 4


def test_a_sound_app_and_nothing_is_made(served: Shell) -> None:
    for _ in range(2):
        found = served.json("check", served.app)
        assert found["problems"] == []
        assert [line.partition(" ")[0] for line in found["checked"]] == [
            "wiring",
            "NATS:",
            "ClickHouse:",
        ]
    status = served.json("status", served.app, "--interval", "0")
    assert not status["stream"]["exists"]
    served.drain()
    code, out, _ = served.run("check", served.app)
    assert code == 0
    assert out.count("ok  ") == 3


def test_conflicts_with_what_exists(served: Shell) -> None:
    served.drain()
    changed = (served.folder / f"{served.name}.py").read_text()
    changed = changed.replace("length: int", "length: list[int]")
    changed = changed.replace('order_by=("text",)', "order_by=()")
    app = served.write(changed)
    table = f"length_{served.name}"
    code, out, _ = served.run("check", app)
    assert code == 1
    assert f"problem  stage sink-{table}: table {table} is sorted by (text)" in out

    loaded = load_app(served.app)

    async def disturb() -> None:
        async with wiring.jetstream(loaded, Settings.load(), "test") as broker:
            client, name = broker.client, loaded.name
            await admin.ask(client, f"STREAM.DELETE.{name}", None, "x")
            config = {"name": name, "subjects": ["elsewhere." + name], "retention": "workqueue"}
            await admin.ask(client, f"STREAM.CREATE.{name}", config, "x")
            config = {"name": f"{name}-dead", "subjects": [f"dead.{name}.>"]}
            await admin.ask(client, f"STREAM.DELETE.{name}-dead", None, "x")
            config = {"name": f"{name}-other", "subjects": [f"dead.{name}.>"]}
            await admin.ask(client, f"STREAM.CREATE.{name}-other", config, "x")

    asyncio.run(disturb())
    code, out, _ = served.run("check", served.app)
    assert code == 1
    assert f"problem  app {loaded.name}: stream {loaded.name} exists with retention=" in out
    assert f"stream {loaded.name}-other holds subjects of dead.{loaded.name}.>" in out


def test_a_consumer_with_other_settings(served: Shell) -> None:
    served.drain()
    app = load_app(served.app)

    async def disturb() -> None:
        async with wiring.jetstream(app, Settings.load(), "test") as broker:
            where = f"{app.name}.count"
            await admin.ask(broker.client, f"CONSUMER.DELETE.{where}", None, "x")
            config = {
                "name": "count",
                "durable_name": "count",
                "ack_policy": "all",
                "deliver_policy": "new",
            }
            body = {"stream_name": app.name, "config": config, "action": "create"}
            await admin.ask(broker.client, f"CONSUMER.CREATE.{where}", body, "x")

    asyncio.run(disturb())
    _, out, _ = served.run("check", served.app)
    assert "problem  stage count: consumer count of stream" in out
    assert "mqinfer needs 'explicit'" in out


def test_a_type_that_changed_while_messages_wait(served: Shell) -> None:
    source = (served.folder / f"{served.name}.py").read_text()
    (served.folder / "words.jsonl").write_text('{"text": "a"}\n')
    assert served.run("publish", served.app, "word", "words.jsonl")[0] == 0
    code, out, _ = served.run("check", served.app)
    assert code == 0
    assert "ok       messages: 2 of those that wait can be read" in out  # by two stages
    app = served.write(source.replace('id: str = ""', "size: int"))
    code, out, _ = served.run("check", app)
    assert code == 1
    for stage in ("measure", "count"):
        assert (
            f"problem  stage {stage}: 1 of 1 messages of Word that wait would be dead letters: 1 x "
            "the payload is no Word: Object missing required field `size` (older code wrote none"
        ) in out


def test_a_report_tells_each_problem_once() -> None:
    report = Report()
    report.found("stage a", "x\ny")
    report.found("stage a", "x y")
    assert report.problems == ["stage a: x y"]


async def test_what_one_server_lacks_is_not_held_against_another() -> None:
    """Whoever answers first: the sound one is told as sound, in the order of the checks."""
    told = asyncio.Event()

    async def nats(report: Report) -> None:
        before = len(report.problems)
        await told.wait()
        if len(report.problems) == before:
            report.checked.append("NATS: sound")

    async def clickhouse(report: Report) -> None:
        report.found("stage sink-a", "no such column")
        report.checked.append("ClickHouse: answers")
        told.set()

    async def triton(report: Report) -> None:
        raise Unavailable("triton at host:1: connection refused")

    report = Report()
    await gather(report, {"NATS": nats, "ClickHouse": clickhouse, "Triton": triton})
    assert report.checked == ["NATS: sound", "ClickHouse: answers"]
    assert report.problems == [
        "stage sink-a: no such column",
        "Triton: at host:1: connection refused",
    ]
