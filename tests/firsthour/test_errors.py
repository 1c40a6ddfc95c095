"""Each mistake of a newcomer is told in one line that says what to do; `errors` prints them all."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.firsthour.desk import Desk, Mistake
from tests.firsthour.mistakes import MISTAKES
from tests.firsthour.models import repository
from tests.support.cli import Shell
from tests.support.triton import own_server

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


@pytest.fixture(scope="session")
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with a good model and some bad ones."""
    folder = tmp_path_factory.mktemp("server")
    repository(folder)
    with own_server(folder, folder / "models") as server:
        yield server.url


@pytest.fixture
def desk(
    shell: Shell,
    cli_nats: str,
    taken: int,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Callable[[Mistake], tuple[int | None, str]]:
    """Make a mistake, with the servers that it needs."""

    def told(mistake: Mistake) -> tuple[int | None, str]:
        known = {"nats": cli_nats, "taken": str(taken)}
        known["nats_port"] = cli_nats.partition("//")[2]
        monkeypatch.setenv("MQINFER_NATS_URL", cli_nats)
        if "MQINFER_CLICKHOUSE_URL" in mistake.environ:
            known["clickhouse"] = url = request.getfixturevalue("url")
            known["intruder"] = re.sub("//.*@", "//default:wrong@", url)
        if "{models}" in mistake.environ.get("MQINFER_TRITON_URL", ""):
            known["models"] = request.getfixturevalue("server")
        for name, value in mistake.environ.items():
            for word, address in known.items():
                value = value.replace(f"{{{word}}}", address)
            monkeypatch.setenv(name, value)
        return Desk(shell, known).told(mistake)

    return told


def in_order(parts: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, parts)))


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.id)
def test_a_mistake_is_told_in_one_line(
    mistake: Mistake,
    desk: Callable[[Mistake], tuple[int | None, str]],
    record_property: Callable[[str, object], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    code, text = desk(mistake)
    text = "\n".join((text, *caplog.messages))  # which goes to stderr outside of pytest
    lines = [line for line in text.splitlines() if in_order(mistake.says).search(line)]
    assert lines, text
    assert "Traceback" not in text
    assert code == (None if mistake.script else mistake.code), text
    if mistake.script or (mistake.code and not mistake.letter):
        errors = [line for line in text.splitlines() if line.startswith(("error: ", "problem "))]
        assert len(errors or lines) == 1, text
    line = " ".join(lines[0].split())
    record_property("told", (mistake.name, mistake.what, code, line))
    print(f"\n{mistake.name} -> {code}\n  {line}")


def test_the_page_has_them_all() -> None:
    listed = re.findall(r"^\| (.+?) \| `", PAGE.read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(mistake.name for mistake in MISTAKES)
