"""`mqinfer dead`: dead letters are listed, shown, sent back under their identity, or dropped."""

import asyncio
import datetime
import json
from collections import Counter
from typing import Any

import pytest

from mqinfer import plan, wiring
from mqinfer.adapters.scan import Scanner
from mqinfer.cli.dead import preview
from mqinfer.cli.load import load_app
from mqinfer.errors import ConfigurationError
from mqinfer.flow import deadletter
from mqinfer.identity import MSG_ID, header_block, output_id
from mqinfer.operate.letters import DeadLetters, Letter, Selection, parse_sequences, retry_headers
from mqinfer.rowpacks.unpack import payload_of, raw_rows
from mqinfer.settings import Settings
from mqinfer.streams import Stored
from tests.support.cli import Shell


def scan(shell: Shell, stream: str) -> list[Stored]:
    async def read() -> list[Stored]:
        async with wiring.jetstream(load_app(shell.app), Settings.load(), "test") as broker:
            return [message async for message in Scanner(broker.client).messages(stream)]

    return asyncio.run(read())


def publish(shell: Shell, *texts: str) -> None:
    path = shell.folder / "words.jsonl"
    path.write_text("\n".join(json.dumps({"text": text, "id": text}) for text in texts))
    code, _, err = shell.run("publish", shell.app, "word", str(path), "--id-field", "id")
    assert code == 0, err


def bury(shell: Shell, *letters: dict[str, Any]) -> None:
    """Put dead letters into the stream as a worker would."""
    app = load_app(shell.app)

    async def put() -> None:
        async with wiring.jetstream(app, Settings.load(), "test") as broker:
            await broker.ensure_stream(plan.stream_spec(app))
            await broker.ensure_stream(plan.dead_stream_spec(app))
            for number, letter in enumerate(letters):
                stage = letter.get("stage", "measure")
                pairs = {
                    MSG_ID: f"dead:{number}",
                    "Mq-Id": f"id{number}",
                    deadletter.STAGE: stage,
                    deadletter.SUBJECT: f"{app.name}.word",
                    deadletter.STREAM: app.name,
                    deadletter.SEQUENCE: str(letter.get("sequence", 1)),
                    deadletter.ATTEMPTS: "5",
                    deadletter.KIND: letter.get("kind", "failed"),
                    deadletter.ERROR: "ValueError",
                    deadletter.REASON: letter.get("reason", "it fails"),
                    **letter.get("headers", {}),
                }
                stored = asyncio.get_running_loop().create_future()
                broker.publish(
                    plan.dead_subject(app, stage),
                    header_block(pairs),
                    letter.get("data", b'{"text": "x"}'),
                    lambda error, _repeat, stored=stored: stored.set_result(error),
                )
                assert await stored is None

    asyncio.run(put())


def test_the_whole_way_back(served: Shell) -> None:
    publish(served, "good", "fail", "reject")
    served.drain("measure", "count")
    listed = served.json("dead", "list", served.app)["letters"]
    assert {(letter["id"], letter["kind"], letter["error"]) for letter in listed} == {
        ("fail", "failed", "ValueError"),
        ("reject", "rejected", "Reject"),
    }
    _, out, _ = served.run("dead", "list", served.app)
    assert "Reject: no such word [x]" in out
    assert "2 listed, 2 kept" in out

    seq = next(letter["seq"] for letter in listed if letter["id"] == "fail")
    (story,) = served.json("dead", "show", served.app, str(seq))
    assert json.loads(story["payload"]) == {"text": "fail", "id": "fail"}
    assert "ValueError: it fails" in story["traceback"]
    assert story["headers"]["Mq-Id"] == "fail"
    assert story["headers"]["Nats-Msg-Id"] == f"{served.name}.word:fail"
    _, out, _ = served.run("dead", "show", served.app, str(seq))
    assert "ValueError: it fails" in out
    assert "payload:     " in out

    # The cause is mended: it goes back to the one stage that gave up.
    (served.folder / "mended").touch()
    code, out, _ = served.run("dead", "retry", served.app, "--kind", "failed", "--dry-run")
    assert (code, out) == (0, "1 dead letter would be sent back\n  measure: 1\n")
    result = served.json("dead", "retry", served.app, "--kind", "failed")
    assert (result["done"], result["by_stage"]) == (1, {"measure": 1})
    served.drain("measure", "count")

    packs = [
        m.data for m in scan(served, served.name) if m.subject.endswith("length_" + served.name)
    ]
    rows = [row for pack in packs for row in raw_rows(pack)]
    assert sorted(json.loads(row)["text"] for row in rows) == ["fail", "good"]
    identity = output_id("fail", "measure", None, 0)
    (row,) = [row for pack in packs if (row := payload_of(pack, identity)) is not None]
    assert json.loads(row)["text"] == "fail"
    counted = Counter((served.folder / "counted").read_text().split())
    assert counted == {"good": 1, "fail": 1, "reject": 1}
    left = served.json("dead", "list", served.app)
    assert [letter["id"] for letter in left["letters"]] == ["reject"]

    assert served.json("dead", "drop", served.app, "--all")["done"] == 1
    assert served.json("dead", "list", served.app)["kept"] == 0
    assert served.json("dead", "drop", served.app, "--all")["done"] == 0


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        ([], [1, 2, 3, 4]),
        (["--stage", "measure"], [1, 3, 4]),
        (["--stage", "measure", "--stage", "count"], [1, 2, 3, 4]),
        (["--stage", "nobody"], []),
        (["--kind", "decode"], [3]),
        (["--reason", "NO SUCH"], [2, 4]),
        (["--seq", "2", "--seq", "4-9"], [2, 4]),
        (["--limit", "2"], [1, 2]),
        (["--since", "1h"], [1, 2, 3, 4]),
        (["--since", "2100-01-01"], []),
        (["--until", "2020-01-01"], []),
        (["--until", "now", "--kind", "failed", "--limit", "1"], [1]),
    ],
)
def test_filters(filters: list[str], numbers: list[int], buried: Shell) -> None:
    found = buried.json("dead", "list", buried.app, *filters)
    assert [letter["seq"] for letter in found["letters"]] == numbers
    assert found["kept"] == 4


@pytest.fixture
def buried(served: Shell) -> Shell:
    bury(
        served,
        {"reason": "it fails"},
        {"stage": "count", "reason": "no such file"},
        {"kind": "decode", "reason": "no JSON"},
        {"reason": "no such [thing]"},
    )
    return served


def test_show_of_what_is_not_there(buried: Shell) -> None:
    code, _, err = buried.run("dead", "show", buried.app, "99")
    assert code == 2
    assert "no dead letter has the number 99" in err


def test_many_letters_are_scanned_in_batches(served: Shell) -> None:
    bury(served, *({"data": b"x" * 20_000} for _ in range(600)), {"stage": "count"})
    assert len(served.json("dead", "list", served.app, "--limit", "1000")["letters"]) == 601
    assert served.json("dead", "drop", served.app, "--stage", "measure")["done"] == 600
    (left,) = served.json("dead", "list", served.app)["letters"]
    assert left["stage"] == "count"


def test_a_payload_that_was_left_out_comes_from_the_stream(served: Shell) -> None:
    publish(served, "one", "two")
    omitted = {"data": b"", "headers": {deadletter.OMITTED: "30"}}
    bury(served, {**omitted, "sequence": 2}, {**omitted, "sequence": 99})
    first, second = served.json("dead", "show", served.app, "1", "2")
    assert json.loads(first["payload"])["text"] == "two"
    assert second["payload"] is None

    code, out, err = served.run("dead", "retry", served.app, "--all")
    assert code == 1
    assert out.startswith("1 dead letter sent back")
    assert "dead letter 2 (measure): its payload was too large to be kept with it" in err
    sent = scan(served, served.name)[-1]
    assert json.loads(sent.data)["text"] == "two"
    assert served.json("dead", "list", served.app)["kept"] == 1


def test_killed_between_publish_and_delete_it_can_run_again(buried: Shell) -> None:
    app = load_app(buried.app)

    class Dying(Scanner):
        """Streams whose process dies before it deletes."""

        async def delete(self, stream: str, sequence: int) -> bool:
            raise KeyboardInterrupt

    async def die() -> None:
        async with wiring.jetstream(app, Settings.load(), "test") as broker:
            runs = wiring.runs(app, broker)
            letters = DeadLetters(app, Dying(broker.client), broker, runs)
            await letters.retry(Selection(sequences=((1, 1),)))

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(die())
    assert len(scan(buried, buried.name)) == 1
    assert buried.json("dead", "retry", buried.app, "--all")["done"] == 4
    sent = scan(buried, buried.name)
    assert [message.headers["Mq-Id"] for message in sent] == ["id0", "id1", "id2", "id3"]
    assert [message.headers["Mq-Only"] for message in sent] == [
        "measure",
        "count",
        "measure",
        "measure",
    ]


def test_letters_of_a_stage_that_is_no_more_go_to_the_one_that_took_over(served: Shell) -> None:
    bury(served, {"stage": "gone"})
    code, _, err = served.run("dead", "retry", served.app, "--all")
    assert code == 1
    assert "has no stage gone any more: name the one that took over with --to STAGE" in err
    code, _, err = served.run("dead", "retry", served.app, "--all", "--to", "nobody")
    assert code == 2
    assert "no stage nobody" in err
    assert served.json("dead", "retry", served.app, "--all", "--to=measure")["done"] == 1
    assert [message.headers["Mq-Only"] for message in scan(served, served.name)] == ["measure"]


# --- pure ---------------------------------------------------------------------------------------


def letter(headers: dict[str, str], sequence: int = 7) -> Letter:
    moment = datetime.datetime(2026, 5, 1, tzinfo=datetime.UTC)
    return Letter(Stored("a-dead", "dead.a.s", sequence, moment, headers, b"x"))


def test_retry_headers_keep_the_originals() -> None:
    headers = {
        "Mq-Id": "i",
        MSG_ID: "dead:s::i:1",
        "traceparent": "t",
        "Mq-Only": "someone else",
        deadletter.STAGE: "s",
        deadletter.PREFIX + "Msg-Id": "i",
        deadletter.REASON: "r",
    }
    pairs = retry_headers(letter(headers), "s")
    assert pairs["Mq-Only"] == "s"
    assert (pairs["Mq-Id"], pairs["traceparent"]) == ("i", "t")
    assert not any(name.startswith(deadletter.PREFIX) for name in pairs)
    others = {retry_headers(letter(headers, 8), "s")[MSG_ID], "i", "dead:s::i:1"}
    assert pairs[MSG_ID] not in others


def test_a_letter_without_our_headers_is_still_shown() -> None:
    summary = letter({}).summary()
    assert (summary["stage"], summary["attempts"], summary["bytes"]) == ("s", 0, 1)


def test_sequences() -> None:
    assert parse_sequences(["1", " 20-25 "]) == ((1, 1), (20, 25))
    with pytest.raises(ConfigurationError, match="no sequence"):
        parse_sequences(["-3"])


def test_a_preview_is_one_line_whatever_is_in_it() -> None:
    assert preview(b'{"a": 1}\n') == '{"a": 1}\\n'
    assert preview(b"\xff\xfe\x00") == r"b'\xff\xfe\x00'"
    assert preview("ä".encode() * 300).endswith("ä ...")
    assert preview(b"") == ""


def test_letters_with_headers_that_are_no_text(served: Shell) -> None:
    garbage = {
        deadletter.OMITTED: "x",
        deadletter.SEQUENCE: "\u00b2",
        deadletter.ATTEMPTS: "9" * 5000,
    }
    bury(served, {"reason": "a \udcff \u00e4", "headers": {"X": "\udcfe", **garbage}})
    (found,) = served.json("dead", "list", served.app)["letters"]
    assert found["reason"] == "a \udcff \u00e4"
    assert (found["stream_seq"], found["attempts"], found["bytes"]) == (0, 0, len(b'{"text": "x"}'))
    for arguments in (("list", served.app), ("show", served.app, str(found["seq"]))):
        code, out, err = served.run("dead", *arguments)
        assert code == 0, err
        assert "a \\udcff \u00e4" in out
