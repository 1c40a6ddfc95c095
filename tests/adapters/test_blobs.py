"""Blob stores: one suite that all must pass, then what is special about each.

The S3 tests run against moto's server, a real HTTP endpoint, in a process of its own.
"""

import asyncio
import base64
import dataclasses
import errno
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mqinfer import App, Message, Settings, wiring
from mqinfer.adapters.blobs import open_store, through_cache
from mqinfer.adapters.blobstores import folder as files
from mqinfer.adapters.blobstores.cloud import CloudStore
from mqinfer.adapters.blobstores.folder import FolderStore
from mqinfer.adapters.blobstores.memory import MemoryStore
from mqinfer.adapters.blobstores.natsobjects import NatsObjects
from mqinfer.adapters.blobstores.objects import ObjectStore
from mqinfer.blob import Blob, Dropping, Streamed
from mqinfer.counts import BlobCacheMetrics
from mqinfer.dropped import drop_folder
from mqinfer.errors import (
    BlobError,
    BlobNotFound,
    BlobPathError,
    BlobTooLarge,
    ConfigurationError,
    Reject,
    Unavailable,
)
from mqinfer.stack.ports import free_port
from mqinfer.testing import Harness, nats_only
from tests.support.s3 import s3_config

STORES = ["folder", "memory", "objects", "nats", "s3", "cached"]


class Bucket:
    """An object bucket in memory."""

    def __init__(self, name="bucket"):
        self.name, self.objects, self.closed = name, {}, False
        self.hang = asyncio.Event()
        self.hang.set()

    async def size(self, name):
        await self.hang.wait()
        return len(self.objects[name]) if name in self.objects else None

    async def pieces(self, name):
        if name not in self.objects:
            raise BlobNotFound(f"nothing is stored under {name!r}")
        for start in range(0, len(self.objects[name]), 1_000_000):
            yield self.objects[name][start : start + 1_000_000]

    async def put_pieces(self, name, pieces):
        self.objects[name] = b"".join([piece async for piece in pieces])

    async def names(self):
        return list(self.objects)

    async def version(self, name):
        await self.hang.wait()
        return str(hash(self.objects[name])) if name in self.objects else None

    async def get(self, name):
        await self.hang.wait()
        return self.objects.get(name)

    async def put(self, name, data):
        await self.hang.wait()
        self.objects[name] = data

    async def drop(self, name):
        self.objects.pop(name, None)

    async def close(self):
        self.closed = True


def download(url):
    with urllib.request.urlopen(url, timeout=120) as answer:
        return answer.read()


@asynccontextmanager
async def connected(settings, url="nats://"):
    """A store in NATS, as a worker of the app `test` has it."""
    app = App("test")
    settings = dataclasses.replace(settings, blobs=url)
    async with wiring.jetstream(app, settings, "test") as broker:
        store = wiring.blobs(app, settings, broker)
        store.broker = broker
        yield store
        await store.close()


@pytest.fixture(params=STORES)
async def store(request, tmp_path):
    if request.param == "folder":
        found = open_store(str(tmp_path / "not" / "yet"))
    elif request.param == "memory":
        found = open_store("memory://")
    elif request.param == "objects":
        found = open_store("nats://bucket", objects=Bucket)
    elif request.param == "nats":
        async with nats_only(tmp_path) as settings, connected(settings) as found:
            yield found
            return
    else:
        config = s3_config(request.getfixturevalue("s3_endpoint"))
        found = CloudStore(f"s3://{request.getfixturevalue('bucket')}/pre/fix", config=config)
        if request.param == "cached":
            found = through_cache(found, str(tmp_path / "cache"), 20_000_000, BlobCacheMetrics())
    yield found
    await found.close()


# --- every store ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["a", "p1/2026-05-01/image.png", "ä ö/#%25 +&=.png", ".x", "a..b"])
async def test_what_is_put_is_got(store, path):
    assert not await store.exists(path)
    await store.put(path, b"one")
    assert await store.exists(path)
    assert await store.get(path) == b"one"
    await store.put(path, b"other")
    assert await store.get(path) == b"other"


@pytest.mark.parametrize("size", [0, 1, 6_000_000])
async def test_any_size(store, size):
    data = os.urandom(size)
    await store.put("x", data)
    found = await store.get("x")
    assert type(found) is bytes
    assert found == data


async def test_what_is_below_a_prefix_is_told(store):
    names = ["in/a.png", "in/b/c d.png", "in/b/ä.png"]
    for name in (*names, "inner/x.png", "other/in/y.png"):
        await store.put(name, b"x")
    assert [name async for name in store.names("in/")] == names
    assert [name async for name in store.names("in/b/")] == names[1:]
    assert [name async for name in store.names("none/")] == []
    for wrong in ("../", "/etc/", "/"):
        with pytest.raises(BlobPathError):
            assert not [name async for name in store.names(wrong)]


async def test_a_large_blob_can_be_read_in_pieces(store):
    if not isinstance(store, Streamed):
        pytest.skip("it gives a blob as a whole")
    data = os.urandom(24_000_000)  # obstore gives 10 MiB at least
    await store.put("a/large", data)
    pieces = [piece async for piece in store.stream("a/large")]
    assert b"".join(pieces) == data
    assert len(pieces) > 1
    for start in (1, 1_000_000, len(data) - 1, len(data)):
        rest = [piece async for piece in store.stream("a/large", start=start)]
        assert b"".join(rest) == data[start:]
        assert all(rest)
    await store.put("a/empty", b"")
    assert b"".join([piece async for piece in store.stream("a/empty")]) == b""
    with pytest.raises(BlobNotFound):
        assert not [piece async for piece in store.stream("a/none")]


@pytest.mark.parametrize("sizes", [(), (0, 1), (3, 0, 700_000), (9_000_000, 8_000_000, 5)])
async def test_a_blob_can_be_written_in_pieces(store, sizes):
    pieces = [os.urandom(size) for size in sizes]
    await store.put("a/x", b"before")

    async def given(error=None):
        for piece in pieces:
            yield piece
        if error is not None:
            raise error

    await store.put_pieces("a/x", given())
    assert await store.get("a/x") == b"".join(pieces)
    # What breaks off leaves what was there, and says what it was.
    for error in (BlobError("gone"), Unavailable("away"), ZeroDivisionError("no")):
        with pytest.raises(type(error), match=str(error)):
            await store.put_pieces("a/x", given(error))
    assert await store.get("a/x") == b"".join(pieces)
    assert [name async for name in store.names("a/")] == ["a/x"]


async def test_what_is_dropped_is_gone(store):
    assert isinstance(store, Dropping)
    for name in ("a/x", "a/b/y", "ab/z"):
        await store.put(name, bytes(2_000_000))
        assert await store.exists(name)
    await drop_folder(store, "a/")
    for name in ("a/x", "a/b/y"):
        assert not await store.exists(name)
        with pytest.raises(BlobNotFound):
            await store.get(name)
    await store.drop("a/x")  # once more, and what never was
    await store.drop("c")
    await store.put("a/x", b"new")
    assert await store.get("a/x") == b"new"
    assert len(await store.get("ab/z")) == 2_000_000
    with pytest.raises(BlobPathError):
        await store.drop("../x")


async def test_nothing_there(store):
    with pytest.raises(BlobNotFound, match=r"nothing is stored under 'p1/none\.png'"):
        await store.get("p1/none.png")
    await store.put("p1/x.png", b"")
    with pytest.raises(BlobNotFound):
        await store.get("p1")
    assert not await store.exists("p1")


async def test_more_than_allowed_is_not_read(store):
    await store.put("x", bytes(100))
    assert len(await store.get("x", max_bytes=100)) == 100
    with pytest.raises(BlobTooLarge, match="'x' has 100 bytes, more than the 99 that are allowed"):
        await store.get("x", max_bytes=99)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a\\b", "a\0b"])
async def test_paths_that_leave_the_store(store, path):
    for call in (store.get, lambda path: store.put(path, b""), store.exists):
        with pytest.raises(BlobPathError):
            await call(path)


async def test_many_at_once(store):
    async def one(number):
        await store.put(f"p/{number % 3}/{number}", bytes([number]) * 1000)
        assert await store.get(f"p/{number % 3}/{number}") == bytes([number]) * 1000

    await asyncio.gather(*(one(number) for number in range(60)))


async def test_a_blob_saves_itself_and_is_read_back(store):
    blob = Blob(b"large" * 100)
    await blob.save(store, inline_limit=10)
    assert blob.path.startswith("sha256/")
    assert await Blob.at(blob.path).bind(store).bytes() == b"large" * 100


# --- which store ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["", " ", "ftp://x/y", "s3://", "file://", "file://host/x", "nats://"]
)
def test_what_is_no_store_says_what_is(url):
    with pytest.raises(ConfigurationError, match=r"MQINFER_BLOBS=.*name a folder, s3://"):
        open_store(url)


def test_folders_by_path_and_by_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    real = os.path.realpath(tmp_path)
    assert open_store("here").root == f"{real}/here"
    assert open_store(f"file://{tmp_path}/a%20b").root == f"{real}/a b"
    assert "here" in repr(open_store("here"))


def test_objects_need_a_connection():
    with pytest.raises(ConfigurationError, match="needs a connection to NATS"):
        open_store("nats://bucket")


def test_a_missing_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    for url in ("s3://bucket", "gs://bucket"):
        with pytest.raises(ConfigurationError, match=r"pip install 'mqinfer\[s3\]'"):
            open_store(url)


def test_obstore_is_loaded_for_the_cloud_alone():
    code = (
        "import sys, mqinfer.adapters.blobs as b; b.open_store('x');"
        "sys.exit('obstore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# --- folder ---------------------------------------------------------------------------------------


@pytest.fixture
async def folder(tmp_path):
    store = FolderStore(tmp_path / "root")
    yield store
    await store.close()


async def test_links_out_of_the_folder_are_refused(folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    await folder.put("in/x", b"fine")
    root = Path(folder.root)
    (root / "out").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    (root / "up").symlink_to("..")
    (root / "also").symlink_to(root / "in")
    for path in ("out/secret", "file", "up/outside/secret"):
        with pytest.raises(BlobPathError, match="through a symbolic link"):
            await folder.get(path)
        with pytest.raises(BlobPathError):
            await folder.exists(path)
    with pytest.raises(BlobPathError):
        await folder.put("out/new", b"")
    assert not (outside / "new").exists()
    assert await folder.get("also/x") == b"fine"
    # Replacing a link replaces the link, never what it leads to.
    await folder.put("file", b"new")
    assert (outside / "secret").read_bytes() == b"secret"
    assert await folder.get("file") == b"new"


async def test_a_root_that_is_a_link_is_fine(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store = FolderStore(tmp_path / "link")
    await store.put("a/b", b"x")
    assert (tmp_path / "real" / "a" / "b").read_bytes() == b"x"


async def test_the_missing_folder_itself_is_named(folder):
    with pytest.raises(BlobNotFound, match=r"root, which does not exist"):
        await folder.get("x")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
async def test_a_full_disk_is_an_error_and_leaves_nothing(folder, monkeypatch, code):
    await folder.put("a/x", b"before")

    def full(handle, data):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, "write", full)
    with pytest.raises(BlobError, match=f"'a/x'.*{os.strerror(code)}"):
        await folder.put("a/x", b"after")
    monkeypatch.undo()
    assert await folder.get("a/x") == b"before"
    assert os.listdir(f"{folder.root}/a") == ["x"]  # noqa: PTH208


async def test_pieces_that_find_the_disk_full_leave_nothing(folder, monkeypatch):
    write = os.write

    def full(handle, data):
        if bytes(data) == b"too much":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data)

    async def pieces():
        yield b"first"
        yield b"too much"

    monkeypatch.setattr(files.os, "write", full)
    with pytest.raises(BlobError, match=r"'a/x'.*No space"):
        await folder.put_pieces("a/x", pieces())
    assert os.listdir(f"{folder.root}/a") == []  # noqa: PTH208


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT])
async def test_a_network_folder_that_is_away_is_an_outage(folder, monkeypatch, code):
    def away(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, "open", away)
    with pytest.raises(Unavailable, match="the blob folder"):
        await folder.get("x")


async def test_a_folder_that_hangs_is_an_outage(tmp_path, monkeypatch):
    store = FolderStore(tmp_path, timeout=0.05)
    go_on = threading.Event()
    monkeypatch.setattr(store, "_read", lambda path, limit: go_on.wait(120))
    with pytest.raises(Unavailable, match=r"does not answer within 0\.05 s"):
        await store.get("x")
    go_on.set()
    await store.close()


async def test_writing_goes_on_in_pieces(folder, monkeypatch):
    write = os.write
    monkeypatch.setattr(files.os, "write", lambda handle, data: write(handle, data[:7]))
    await folder.put("x", bytes(range(100)))
    assert await folder.get("x") == bytes(range(100))


async def test_a_reader_never_meets_half_a_blob(folder):
    versions = [bytes([letter]) * 300_000 for letter in b"ab"]
    await folder.put("x", versions[0])
    stop = asyncio.Event()

    async def read():
        seen = 0
        while not stop.is_set():
            assert await folder.get("x") in versions
            seen += 1
        return seen

    reader = asyncio.create_task(read())
    for turn in range(40):
        await folder.put("x", versions[turn % 2])
    stop.set()
    assert await reader > 0


async def test_a_killed_writer_leaves_the_old_blob(tmp_path):
    """The process ends by SIGKILL just before the rename."""
    store = FolderStore(tmp_path)
    await store.put("a/x", b"old")
    code = f"""
import asyncio, os, signal
from mqinfer.adapters.blobstores import folder
folder.os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(folder.FolderStore({str(tmp_path)!r}).put("a/x", b"new"))
"""
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert await store.get("a/x") == b"old"


async def test_durable_puts_flush_file_and_folders(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync

    def noted(handle):
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))  # noqa: PTH115
        fsync(handle)

    monkeypatch.setattr(files.os, "fsync", noted)
    root = FolderStore(tmp_path).root
    await FolderStore(tmp_path).put("a/b/x", b"1")
    assert synced[0].endswith(".tmp")
    assert sorted(synced[1:]) == [root, f"{root}/a", f"{root}/a/b"]
    synced.clear()
    await FolderStore(tmp_path).put("a/b/y", b"1")
    assert synced[1:] == [f"{root}/a/b"]
    synced.clear()
    await FolderStore(tmp_path, durable=False).put("c/x", b"1")
    assert synced == []


async def test_what_is_in_the_way(folder):
    await folder.put("a/x", b"1")
    with pytest.raises(BlobError, match="a file is in its place"):
        await folder.put("a/x/y", b"1")
    with pytest.raises(BlobError, match="a folder has this name"):
        await folder.put("a", b"1")
    os.mkfifo(f"{folder.root}/pipe")
    with pytest.raises(BlobNotFound, match="is no file"):
        await folder.get("pipe")
    assert not await folder.exists("pipe")


@pytest.mark.parametrize("path", ["x" * 300, "\ud800"])
async def test_names_that_no_file_can_have_are_rejected_for_good(folder, path):
    await folder.put("x", b"")  # makes the folder
    for call in (folder.get, lambda path: folder.put(path, b"")):
        with pytest.raises(BlobPathError) as refused:
            await call(path)
        assert isinstance(refused.value, Reject)


async def test_a_closed_store_says_so(folder):
    await folder.close()
    with pytest.raises(BlobError, match="is closed"):
        await folder.get("x")


async def test_a_cancelled_call_is_cancelled(folder, monkeypatch):
    started, go_on = threading.Event(), threading.Event()

    def slow(path, limit):
        started.set()
        go_on.wait(120)

    monkeypatch.setattr(folder, "_read", slow)
    call = asyncio.create_task(folder.get("x"))
    assert await asyncio.to_thread(started.wait, 30)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    go_on.set()


# --- objects --------------------------------------------------------------------------------------


async def test_objects_close_and_time_out():
    bucket = Bucket()
    store = ObjectStore(bucket, timeout=0.05)
    bucket.hang.clear()
    with pytest.raises(Unavailable, match="does not answer"):
        await store.get("x")
    await store.close()
    assert bucket.closed


async def test_memory_shows_what_it_has():
    store = MemoryStore()
    await store.put("a", b"x")
    assert repr(store) == "MemoryStore(1 blobs)"


# --- objects in NATS ------------------------------------------------------------------------------


async def test_objects_are_shared_with_other_clients_of_nats(nats):
    """What is written here is read by nats-py's own client, and the other way round."""
    from nats.aio.client import Client

    data = os.urandom(1_500_000)
    async with connected(nats, "nats://shared") as store:
        await store.put("a/ä b.png", data)
        client = Client()
        await client.connect(nats.nats_url)
        try:
            bucket = await client.jetstream().object_store("shared")
            assert (await bucket.get("a/ä b.png")).data == data
            assert (await bucket.get_info("a/ä b.png")).size == len(data)
            await bucket.put("a/ä b.png", b"other")  # replaces ours
            assert await store.get("a/ä b.png") == b"other"
            await bucket.put("theirs", data)
            assert await store.get("theirs") == data
            await bucket.delete("theirs")
            assert not await store.exists("theirs")
            with pytest.raises(BlobNotFound):
                await store.get("theirs")
            theirs = await client.jetstream().create_object_store("made-by-them")
            await theirs.put("x", b"1")
            async with connected(nats, "nats://made-by-them") as other:
                assert await other.get("x") == b"1"
        finally:
            await client.close()


async def test_replacing_an_object_frees_its_chunks(nats):
    async with connected(nats) as store:
        for _ in range(3):
            await store.put("x", bytes(1_200_000))
        info = await store.broker.stream_info("OBJ_test-blobs")
        assert info["config"]["subjects"] == ["$O.test-blobs.C.>", "$O.test-blobs.M.>"]
        assert info["state"]["messages"] == 4  # three chunks and their description


async def test_an_object_whose_last_answer_is_lost_is_whole(nats):
    """It may be stored or not, and nobody knows: so its chunks stay."""
    async with connected(nats) as store:
        broker = store.broker
        bucket = NatsObjects(broker, "test-blobs", timeout=0.3)
        await bucket.put("x", b"old")
        heard, answers = broker.publisher.on_ack, []

        def only_one(*answer):
            answers.append(answer)
            if len(answers) == 1:  # that of the chunk
                heard(*answer)

        (number,) = broker.client._direct
        broker.client._direct[number] = only_one
        with pytest.raises(Unavailable, match="may be stored"):
            await bucket.put("x", b"new")
        assert await bucket.get("x") == b"new"


async def test_an_object_that_is_broken_is_told(nats):
    async with connected(nats) as store:
        publish = store.broker.client.jetstream().publish
        bucket = NatsObjects(store.broker, "test-blobs")
        await store.put("x", b"right")
        info = await bucket._info("x")
        await publish(f"$O.test-blobs.C.{info['nuid']}", b"more")
        assert await store.get("x") == b"right"  # what is not named does not belong to it
        await bucket._purge(info)
        with pytest.raises(BlobError, match="'x' in bucket test-blobs: 0 of 5 bytes are there"):
            await store.get("x")
        await publish(f"$O.test-blobs.C.{info['nuid']}", b"wrong")
        with pytest.raises(BlobError, match="do not fit its digest"):
            await store.get("x")
        await publish(f"$O.test-blobs.M.{base64.urlsafe_b64encode(b'y').decode()}", b"[1]")
        with pytest.raises(BlobError, match="its description is broken"):
            await store.get("y")


async def test_an_object_is_whole_while_it_is_replaced(nats, monkeypatch):
    """The reader knows the description of an object whose chunks are purged before it reads them"""
    async with connected(nats) as store:
        await store.put("x", b"old" * 1000)
        reading, bucket = store._bucket, NatsObjects(store.broker, "test-blobs")
        chunks = reading._chunks

        async def late(info):
            monkeypatch.undo()
            await bucket.put("x", b"new")
            return await chunks(info)

        monkeypatch.setattr(reading, "_chunks", late)
        assert await store.get("x") == b"new"


@pytest.mark.parametrize("name", ["a/b", "a.b", "a b", "*"])
async def test_a_bucket_that_cannot_be_is_told(nats, name):
    with pytest.raises(ConfigurationError, match="a bucket's name has letters"):
        async with connected(nats, f"nats://{name}"):
            pass


async def test_a_bucket_that_is_away_is_an_outage(nats):
    async with connected(nats) as store:
        await store.put("x", b"1")
        await store.broker.client.api("$JS.API.STREAM.DELETE.OBJ_test-blobs")
        with pytest.raises(BlobNotFound):
            await store.get("x")
        await store.put("x", b"2")  # and it is made again
        assert await store.get("x") == b"2"
        await store.broker.close()
        with pytest.raises(Unavailable):
            await store.get("x")


async def test_a_pipeline_keeps_its_blobs_in_nats(nats):
    app = App("pictures")

    class Order(Message):
        size: int

    class Picture(Message):
        image: Blob

    class Size(Message):
        size: int

    @app.stage
    async def draw(order: Order) -> Picture:
        return Picture(Blob(bytes(order.size)))

    @app.stage(attempts=5)
    async def measure(picture: Picture) -> Size:
        return Size(len(await picture.image.bytes(max_bytes=500_000)))

    chosen = Settings.load({"MQINFER_NATS_URL": nats.nats_url, "MQINFER_BLOBS": "nats://"})
    async with Harness(app, chosen) as harness:
        await harness.publish(Order(10), Order(400_000), Order(600_000))
        await harness.drain()
        assert sorted(found.size for found in await harness.messages(Size)) == [10, 400_000]
        (dead,) = await harness.dead()
        # It would be too large the next time as well, so there is no next time.
        assert (dead.kind, dead.headers["Mq-Dead-Attempts"]) == ("rejected", "1")
        assert "600000 bytes, more than the 500000" in dead.reason


# --- S3 -------------------------------------------------------------------------------------------


async def test_credentials_and_endpoint_come_from_the_environment(s3_endpoint, bucket, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mqinfer")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    store = open_store(f"s3://{bucket}/p")
    await store.put("a/x.png", b"1")
    listing = await asyncio.to_thread(download, f"{s3_endpoint}/{bucket}?list-type=2")
    assert b"<Key>p/a/x.png</Key>" in listing
    assert "hunter2" not in repr(store)


async def test_a_missing_bucket_is_not_a_missing_blob(s3_endpoint):
    store = CloudStore("s3://nothere", config=s3_config(s3_endpoint))
    for call in (store.get("x"), store.put("x", b"")):
        with pytest.raises(BlobError, match="s3://nothere: the bucket does not exist") as refused:
            await call
        assert not isinstance(refused.value, BlobNotFound)


@asynccontextmanager
async def answering(response, times=1000):
    """A server that gives one answer to everything; None never answers."""
    left = times

    async def serve(reader, writer):
        nonlocal left
        left -= 1
        try:
            if left < 0:
                return
            await reader.readuntil(b"\r\n\r\n")
            if response is None:
                await reader.read()
            else:
                writer.write(response)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_a_cloud_in_trouble_is_an_outage(status):
    async with answering(
        b"HTTP/1.1 %d X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status
    ) as endpoint:
        store = CloudStore("s3://b", config=s3_config(endpoint))
        for call in (store.get("x"), store.put("x", b"")):
            with pytest.raises(Unavailable, match=f"s3://b does not answer: .*{status}") as refused:
                await call
            assert "\n" not in str(refused.value)


async def test_a_cloud_that_is_not_there_is_an_outage():
    store = CloudStore("s3://b", config=s3_config(f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(Unavailable, match="s3://b does not answer"):
        await store.get("x")


async def test_a_cloud_that_hangs_is_an_outage():
    async with answering(None) as endpoint:
        store = CloudStore("s3://b", config=s3_config(endpoint), timeout=0.3)
        with pytest.raises(Unavailable, match="s3://b does not answer"):
            await store.get("x")


async def test_an_answer_that_breaks_off_is_an_outage():
    async with answering(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\nETag: x\r\n"
        b"Last-Modified: Wed, 21 Oct 2026 07:28:00 GMT\r\n\r\nabc",
        times=1,
    ) as endpoint:
        store = CloudStore("s3://b", config=s3_config(endpoint), timeout=5)
        with pytest.raises(Unavailable):
            await store.get("x")


@pytest.mark.parametrize("status", [401, 403])
async def test_denied_access_is_an_error_that_says_so(status):
    async with answering(
        b"HTTP/1.1 %d X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status
    ) as endpoint:
        store = CloudStore("s3://b", config=s3_config(endpoint))
        with pytest.raises(BlobError, match=f"blob 'x' in s3://b: .*{status}") as refused:
            await store.get("x")
        assert "hunter2" not in str(refused.value)


def test_a_bad_configuration_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match="MQINFER_BLOBS='s3://b': "):
        CloudStore("s3://b", config={"no_such_option": "x"})
