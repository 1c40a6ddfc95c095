"""The blocks that ask ClickHouse, as they stand on their pages."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
import pytest

from tests.docs.pages import python

TABLES = {
    "examples/hello/README.md": "CREATE TABLE length (word String, letters Int64) ENGINE = Memory",
    "examples/plants/README.md": "CREATE TABLE disease_grade (disease_type String, "
    "predicted_grade Int64) ENGINE = Memory",
}


@pytest.mark.parametrize("page", TABLES)
def test_a_query_of_the_page(page: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at = urlsplit(url)

    def connected(**_: Any) -> Any:
        return clickhouse_connect.create_client(
            host=at.hostname, port=at.port, database=at.path.strip("/")
        )

    connected().command(TABLES[page])
    monkeypatch.setattr(clickhouse_connect, "get_client", connected)
    for block in python(page):
        exec(compile(block, page, "exec"), {})
