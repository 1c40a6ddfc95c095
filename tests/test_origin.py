"""What browsers say of a request, and who is turned away for it."""

from __future__ import annotations

import pytest

from mqinfer.origin import reason

HOST = "127.0.0.1:8123"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": HOST},
        {"host": "localhost:8123"},
        {"host": "LOCALHOST"},
        {"host": "[::1]:8123"},
        {"host": "192.168.1.7:8123"},
        {"host": "clickhouse:8123"},
        {"host": "app.localhost:8123"},
        {"host": "host.docker.internal:8123"},
        {},
        {"host": HOST, "origin": f"http://{HOST}", "sec-fetch-site": "same-origin"},
        {"host": HOST, "sec-fetch-site": "none", "sec-fetch-dest": "document"},
    ],
)
def test_programs_and_own_pages_are_served(headers: dict[str, str]) -> None:
    assert reason(headers) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8123"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "evil.example", "origin": "http://evil.example"},
        {"host": "localhost.evil.example:80"},
        {"host": "localhost@evil.example"},
        {"host": "1.2.3.4.5"},
        {"host": HOST, "origin": "https://evil.example"},
        {"host": HOST, "origin": "null"},
        {"host": HOST, "origin": "http://127.0.0.1:3000"},
        {"host": HOST, "origin": "http://localhost:8123"},
        {"host": HOST, "origin": ""},
        {"host": HOST, "origin": f"http://{HOST}.evil.example"},
        {"host": HOST, "sec-fetch-site": "cross-site"},
        {"host": HOST, "sec-fetch-site": "same-site", "sec-fetch-dest": "image"},
        {"host": HOST, "sec-fetch-site": "cross-site", "sec-fetch-dest": "document"},
    ],
)
def test_pages_of_others_are_turned_away(headers: dict[str, str]) -> None:
    assert reason(headers)


def test_a_link_may_lead_to_what_only_shows() -> None:
    link = {"host": HOST, "sec-fetch-site": "cross-site", "sec-fetch-dest": "document"}
    assert reason(link, navigation=True) is None
    assert reason({**link, "sec-fetch-dest": "iframe"}, navigation=True)
    assert reason({**link, "host": "evil.example"}, navigation=True)
    assert reason({**link, "origin": "https://evil.example"}, navigation=True)


def test_a_server_for_other_machines_has_any_name() -> None:
    assert reason({"host": "workers.example:9000"}, any_host=True) is None
    assert reason({"host": "workers.example:9000", "origin": "https://evil.example"}, any_host=True)
