"""What is taken up of a model repository, and when; no server, only what it would be asked."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from mqinfer.stack import repository
from mqinfer.stack.repository import RepositoryWatch, scan


class Watched(RepositoryWatch):
    """Keeps what it asks."""

    def __init__(self, models: Path):
        super().__init__(models, 0)
        self.asked: list[tuple[str, str]] = []
        self.answers = True

    def _ask(self, name: str, what: str) -> bool:
        self.asked.append((name, what))
        return self.answers

    def looks(self, count: int = 2) -> list[tuple[str, str]]:
        """What it asks in so many looks."""
        self.asked = []
        for _ in range(count):
            self.look()
        return self.asked


@pytest.fixture
def models(tmp_path: Path) -> Path:
    save(tmp_path, "leaf/1/model.py", "1")
    save(tmp_path, "leaf/config.pbtxt", "x")
    return tmp_path


def save(models: Path, name: str, text: str) -> None:
    file = models / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_what_lies_there_at_the_start_is_the_servers(models: Path) -> None:
    assert Watched(models).looks(5) == []


def test_new_models_versions_and_files_are_loaded_and_gone_ones_unloaded(models: Path) -> None:
    watch = Watched(models)
    save(models, "other/1/model.onnx", "1")
    assert watch.looks() == [("other", "load")]
    save(models, "leaf/2/model.py", "2")
    assert watch.looks() == [("leaf", "load")]
    save(models, "leaf/2/model.py", "two")
    assert watch.looks() == [("leaf", "load")]
    os.utime(models / "leaf" / "config.pbtxt", (1, 1))
    assert watch.looks() == [("leaf", "load")]
    (models / "other").rename(models.parent / "away")
    assert watch.looks() == [("other", "unload")]
    assert watch.looks() == []


def test_a_model_that_is_still_being_written_is_left_for_later(models: Path) -> None:
    watch = Watched(models)
    for size in range(5):
        save(models, "other/1/model.onnx", "1" * size)
        assert watch.looks(1) == []
    assert watch.looks(1) == [("other", "load")]


def test_what_python_writes_into_a_version_is_no_change(models: Path) -> None:
    watch = Watched(models)
    save(models, "leaf/1/__pycache__/model.cpython-311.pyc", "1")
    assert watch.looks(3) == []


def test_a_server_that_is_away_is_asked_again(models: Path) -> None:
    watch = Watched(models)
    watch.answers = False
    save(models, "other/1/model.onnx", "1")
    assert watch.looks(4) == [("other", "load")] * 3
    watch.answers = True
    assert watch.looks(4) == [("other", "load")]


def test_a_repository_that_is_gone_has_no_models(tmp_path: Path) -> None:
    assert scan(tmp_path / "nowhere") == {}


async def test_as_a_script_it_asks_a_server_elsewhere(models: Path) -> None:
    """With nothing but Python, as in a container."""
    asked: asyncio.Queue[bytes] = asyncio.Queue()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.put_nowait(await reader.readline())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", repository.__file__, str(models), "127.0.0.1", str(port)
    )
    try:
        async with asyncio.timeout(60):
            assert await asked.get() == b"POST /v2/repository/models/leaf/load HTTP/1.1\r\n"
            save(models, "other/1/model.onnx", "1")
            assert await asked.get() == b"POST /v2/repository/models/other/load HTTP/1.1\r\n"
    finally:
        process.kill()
        await process.wait()
        server.close()
