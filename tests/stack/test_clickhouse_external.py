"""External tables: data that come with a query in a form."""

from __future__ import annotations

import hashlib
import uuid

import clickhouse_connect
import pytest
from clickhouse_connect.driver.external import ExternalData

from mqinfer.stack import ClickHouseServer
from tests.stack.wire import Answer, http, server

__all__ = ["server"]


def form(
    server: ClickHouseServer, files: dict[str, bytes], fields: dict[str, str], **parameters: str
) -> Answer:
    boundary = uuid.uuid4().hex
    body = b""
    for name, value in fields.items():
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
        body += value.encode() + b"\r\n"
    for name, data in files.items():
        disposition = f'form-data; name="{name}"; filename="{name}.x"'
        body += f"--{boundary}\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
        body += data + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return http(server, body, headers, **parameters)


def test_structure_types_and_formats(server: ClickHouseServer) -> None:
    answer = form(
        server,
        {"ext": b"1,a\n2,b", "other one": b"2\tb\n"},
        {},
        query="SELECT s, _1, _2 FROM ext JOIN `other one` ON id = _1",
        ext_format="CSV",
        ext_structure="id UInt8, s String",
        **{"other one_types": "UInt8, Nullable(String)"},
    )
    assert (answer.status, answer.body) == (200, b"b\t2\tb\n")
    # Gone with its query.
    assert http(server, "SELECT * FROM ext").code == "60"


def test_in_a_session_for_one_query(server: ClickHouseServer) -> None:
    session = {"session_id": "external"}
    for number in (b"1", b"2"):
        answer = form(
            server, {"ext": number}, {}, query="SELECT a FROM ext", ext_types="UInt8", **session
        )
        assert answer.code == "47"
        answer = form(
            server, {"ext": number}, {}, query="SELECT * FROM ext", ext_types="UInt8", **session
        )
        assert answer.body == number + b"\n"
    assert http(server, "SELECT * FROM ext", **session).code == "60"


def test_binary_data_and_large_ones(server: ClickHouseServer) -> None:
    rows = bytes(range(256)) * 20_000 + b"\r\n--x\r\n\r\r"
    answer = form(
        server,
        {"raw": rows},
        {"query": "SELECT length(a), hex(SHA256(a)) FROM raw", "raw_format": "RawBLOB"},
        raw_structure="a String",
    )
    assert answer.body.decode().split() == [
        str(len(rows)),
        hashlib.sha256(rows).hexdigest().upper(),
    ]


def test_query_and_parameters_as_fields(server: ClickHouseServer) -> None:
    fields = {"query": "SELECT {a:String}, {b:UInt8}", "param_a": "ü;'", "default_format": "CSV"}
    assert form(server, {}, fields, param_b="7").body == '"ü;\'",7\n'.encode()


def test_what_is_wrong_with_a_form_is_said(server: ClickHouseServer) -> None:
    answer = form(server, {"ext": b"1"}, {}, query="SELECT 1")
    assert (answer.status, answer.code) == (400, "36")
    assert b"ext_structure" in answer.body
    answer = form(server, {"ext": b"1"}, {}, query="SELECT 1", ext_types="NoSuch")
    assert answer.code == "50"
    answer = form(server, {"ext": b"x"}, {}, query="SELECT * FROM ext", ext_types="UInt8")
    assert answer.status >= 400
    answer = http(server, b"no form", {"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status >= 400
    # A structure is columns and nothing else.
    for structure in ("a UInt8) ENGINE = File('CSV', '/etc/passwd'", "a UInt8) AS SELECT (1"):
        answer = form(server, {"ext": b"1"}, {}, query="SELECT * FROM ext", ext_structure=structure)
        assert answer.status >= 400, answer.body


def test_readonly_hinders_no_external_table(server: ClickHouseServer) -> None:
    answer = form(
        server, {"ext": b"1"}, {}, query="SELECT _1 FROM ext", ext_types="UInt8", readonly="1"
    )
    assert answer.body == b"1\n"


@pytest.mark.parametrize("rows", [1, 50_000])
def test_clickhouse_connect_with_external_data(server: ClickHouseServer, rows: int) -> None:
    data = "".join(f"{number},x{number}\n" for number in range(rows)).encode()
    external = ExternalData(
        file_name="people.csv", data=data, fmt="CSV", structure=["id UInt32", "name String"]
    )
    with clickhouse_connect.get_client(dsn=server.url) as client:
        result = client.query("SELECT count(), max(name) FROM people", external_data=external)
        assert result.result_rows[0][0] == rows
