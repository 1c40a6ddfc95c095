"""Sources: files as people have them, and what may be wrong in them; every row is told of."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer import Blob, Message
from mqinfer.adapters.blobstores.folder import FolderStore
from mqinfer.adapters.blobstores.memory import MemoryStore
from mqinfer.codec import Codec
from mqinfer.errors import ConfigurationError
from mqinfer.jobs import chunk, places, planning
from mqinfer.jobs import source as sources
from mqinfer.jobs.checking import Checker
from mqinfer.jobs.chunk import Item
from mqinfer.jobs.sources import lines
from mqinfer.message import Wire

MAX_PAYLOAD = 1024 * 1024


class Iris(Message):
    petal: float
    name: str = "none"
    seen: list[int] = []  # noqa: RUF012 - msgspec copies it
    note: str | None = None
    count: int | None = None


class Strict(Message, forbid_unknown_fields=True):
    n: int


class Own(Message):
    custom_id: str
    n: int


class Picture(Message):
    image: Blob
    name: str
    side: int = 1


class Keyed(Message, key="n"):
    n: int


async def items(
    rows: Any,
    kind: type[Message] = Iris,
    store: MemoryStore | FolderStore | None = None,
    most: int = 1_000,
    form: str | None = None,
) -> list[Item]:
    """The items that a source makes, as they are stored."""
    codec = Codec()
    kept = store or MemoryStore()

    async def encode(message: Message) -> tuple[bytes, Wire]:
        return codec.write(message)

    checker = Checker(kind, codec, encode, MAX_PAYLOAD)
    async with sources.opened(rows, kind, kept, form) as source:
        planned = await planning.plan(source, checker, kept, "jobs/x", most)
    found: list[Item] = []
    for number, first in enumerate(planned.first):
        some = chunk.decode(await kept.get(places.chunk("jobs/x", number)))
        assert some[0].row == first
        assert len(some) <= chunk.rows_of(number, most)
        found += some
    assert planned.rows == len(found)
    assert planned.invalid == sum(item.failure is not None for item in found)
    assert [item.row for item in found] == list(range(1, len(found) + 1))
    return found


def values(found: list[Item]) -> list[Any]:
    """What each item's message says; of a bad row, its error."""
    return [
        item.failure.reason if item.failure is not None else json.loads(item.body.payload)  # type: ignore[union-attr]
        for item in found
    ]


async def test_csv_with_a_mark_quoted_line_ends_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(
        b"\xef\xbb\xbfpetal,name,note,custom_id\r\n"
        b'1.5,"a\r\nb, ""c""",,first\r\n'
        b"\r\n"
        b'2,"\n\n",x,"second\nid"\r\n'
        b"\r\n\r\n"
        b"3,,,"  # no line end
    )
    found = await items(path)
    assert [item.custom_id for item in found] == ["first", "second\nid", ""]
    told = values(found)
    assert [(one["petal"], one["name"]) for one in told] == [
        (1.5, 'a\r\nb, "c"'),
        (2.0, "\n\n"),
        (3.0, "none"),
    ]
    assert [one["note"] for one in told] == [None, "x", None]


async def test_csv_cells_say_what_the_fields_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        "name;petal;seen;count;other\n"
        "7;1e-3;[1, 2];;x\n"
        "null;-0;;12;\n"
        ";asdfg;;;\n"
        "a;1;[1, x];;\n"
        "a;1;;1.5;\n"
        "a;nan;;;\n"
        "a;1\n"
        "a;1;;;;;\n"
        "a;;;;\n"
    )
    told = values(await items(path))
    assert (told[0]["name"], told[0]["petal"], told[0]["seen"]) == ("7", 0.001, [1, 2])
    assert (told[1]["name"], told[1]["count"]) == ("null", 12)
    assert told[2] == "the row is no Iris: Expected `float`, got `str` - at `$.petal`"
    assert "$.seen" in told[3]
    assert "$.count" in told[4]
    assert "petal" in told[5]  # which JSON cannot say
    assert told[6] == "the row has 2 cells, the first row of the file 5"
    assert "7 cells" in told[7]
    assert "$.petal" in told[8]


async def test_a_row_of_csv_that_cannot_be_read_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(
        b"petal,name\n1,a\n2,\xff\xfe\n"
        + b'3,"'
        + b"x" * (csv.field_size_limit() + 10)
        + b'"\n4,d\n5,"open\n6,f\n'
    )
    told = values(await items(path))
    assert told[0]["petal"] == 1
    assert told[1] == "the row is no UTF-8"
    assert "field larger than field limit" in told[2]
    assert told[3]["petal"] == 4
    assert told[4]["name"] == "open\n6,f\n"  # a quote that is never closed takes the rest


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name\nx\n", "names no 'petal', which Iris needs; it names 'name'"),
        ("petal,name,petal\n1,a,2\n", "names 'petal' twice"),
        ("x" * 200_000 + "\n", "its first row is no CSV"),
    ],
)
async def test_a_csv_that_cannot_be_of_the_type_is_told_at_once(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=told):
        await items(path)


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl"])
@pytest.mark.parametrize("text", [b"", b"\n", b"\r\n\r\n", b"\xef\xbb\xbf"])
async def test_an_empty_file_has_no_rows(tmp_path: Path, name: str, text: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(text)
    assert await items(path) == []


async def test_jsonl_as_people_write_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"petal": 1, "custom_id": 7}\r\n'
        b"\n   \n"
        b'{"petal": "asdfg", "custom_id": "b"}\n'
        b"{petal: 1}\n"
        b"[1]\n"
        b'{"petal": 2, "other": {"a": [1]}}\n'
        b'{"petal": 3}'
    )
    found = await items(path)
    assert [item.custom_id for item in found] == ["7", "b", "", "", "", ""]
    told = values(found)
    assert [one["petal"] for one in (told[0], told[4], told[5])] == [1, 2, 3]
    assert told[1].endswith("Expected `float`, got `str` - at `$.petal`")
    assert "no json" in told[2]
    assert "Expected `object`, got `array`" in told[3]


async def test_a_custom_id_that_the_type_has_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"custom_id": "a", "n": 1}\n')
    (own,) = await items(path, Own)
    assert (own.custom_id, values([own])) == ("a", [{"custom_id": "a", "n": 1}])
    (strict,) = await items(path, Strict)
    assert (strict.custom_id, values([strict])) == ("a", [{"n": 1}])
    (keyed,) = await items(path, Keyed)
    assert keyed.key == "1"
    (given,) = await items([Own("b", 2)], Own)
    assert given.custom_id == "b"
    path.write_text(json.dumps({"custom_id": "x" * 300, "n": 1}))
    (long,) = await items(path, Keyed)
    assert "its custom_id has 300 characters" in values([long])[0]


async def test_a_line_that_is_too_long_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "LONGEST", 100)
    path = tmp_path / "rows.jsonl"
    long = '{"petal": 1, "name": "' + "x" * 1_000 + '"}'
    path.write_text(f'{{"petal": 1}}\n{long}\n{{"petal": 2}}\n{long}')
    told = values(await items(path))
    assert [told[0]["petal"], told[2]["petal"]] == [1, 2]
    assert told[1] == "line 2 has more than 100 bytes"
    assert told[3] == "line 4 has more than 100 bytes"


async def test_what_the_server_does_not_take_is_an_error_of_its_row() -> None:
    told = values(await items([{"petal": 1, "name": "x" * MAX_PAYLOAD}, {"petal": 2}, 7]))
    assert "the server takes" in told[0]
    assert told[1]["petal"] == 2
    assert told[2] == "the row is a int, no Iris"


async def test_parquet_of_several_row_groups(tmp_path: Path) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    count = 2_500
    table = arrow.table(
        {
            "petal": [None if n == 7 else n / 2 for n in range(count)],
            "name": [None if n % 3 else f"n{n}" for n in range(count)],
            "seen": [[n, n + 1] for n in range(count)],
            "custom_id": [f"c{n}" for n in range(count)],
            "other": list(range(count)),
        }
    )
    parquet.write_table(table, path, row_group_size=900)
    assert parquet.ParquetFile(path).num_row_groups == 3
    found = await items(path)
    told = values(found)
    assert len(told) == count
    assert [item.custom_id for item in found] == [f"c{n}" for n in range(count)]
    assert told[7] == "the row is no Iris: Expected `float`, got `null` - at `$.petal`"
    for n in (0, 1, 899, 900, 2_499):
        assert told[n]["petal"] == n / 2
        assert told[n]["name"] == ("none" if n % 3 else f"n{n}")
        assert told[n]["seen"] == [n, n + 1]
    empty = tmp_path / "empty.parquet"
    parquet.write_table(table.slice(0, 0), empty)
    assert await items(empty) == []
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ConfigurationError, match="pyarrow cannot read it"):
        await items(broken)
    with pytest.raises(ConfigurationError, match="no column 'n'"):
        await items(path, Strict)


async def test_pictures_of_a_folder_and_of_the_store(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for name in (
        "b/2.PNG",
        "a.jpg",
        "b/10.png",
        "c.txt",
        ".hidden.png",
        ".git/x.png",
        "b/a/1.webp",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    found = await items(folder, Picture)
    names = ["a.jpg", "b/10.png", "b/2.PNG", "b/a/1.webp"]
    assert [item.custom_id for item in found] == names
    assert [one["name"] for one in values(found)] == names
    store = FolderStore(tmp_path / "store")
    for name in names:
        await store.put(f"photos/may/{name}", b"x")
    await store.put("photos/june.png", b"x")
    stored = await items("blob:photos/may/", Picture, store)
    assert [item.custom_id for item in stored] == names
    assert [one["image"] for one in values(stored)] == [f"photos/may/{name}" for name in names]
    assert await items("blob:nowhere/", Picture, store) == []
    with pytest.raises(ConfigurationError, match="it needs petal"):
        await items(folder, Iris)
    await store.close()


async def test_a_file_in_the_store_and_what_is_no_source(tmp_path: Path) -> None:
    store = MemoryStore()
    await store.put("in/rows.csv", b"petal\n1\n2\n")
    assert [one["petal"] for one in values(await items("blob:in/rows.csv", store=store))] == [1, 2]
    await store.put("in/rows", b"petal\n1\n")
    with pytest.raises(ConfigurationError, match="say csv, jsonl, parquet"):
        await items("blob:in/rows", store=store)
    assert len(await items("blob:in/rows", store=store, form="csv")) == 1
    with pytest.raises(ConfigurationError, match="no file or folder"):
        await items("nowhere.csv")


async def test_rows_of_a_program_are_taken_as_they_are_made() -> None:
    async def later() -> Any:
        for n in range(600):
            yield Iris(n) if n % 2 else {"petal": n, "custom_id": str(n)}

    found = await items(later())
    assert [one["petal"] for one in values(found)] == list(range(600))
    assert found[2].custom_id == "2"


texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8)


@given(st.lists(st.tuples(st.integers(-5, 5), texts), max_size=40), st.sampled_from(["\n", "\r\n"]))
def test_whatever_python_writes_as_csv_is_read(rows: list[tuple[int, str]], end: str) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("petal", "name"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        path.write_bytes(text.getvalue().encode())
        told = values(asyncio.run(items(path, most=7)))
    found = [(one["petal"], one["name"]) for one in told]
    assert found == [(petal, name or "none") for petal, name in rows]
