"""The cache of blobs on disk: what is read through it is what the store has, whatever happens.

`Far` is a store that counts; the suite that every store must pass runs over S3 in `test_blobs`.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from mqinfer import App, Settings, wiring
from mqinfer.adapters.blobstores import Found, cached, diskcache, too_large
from mqinfer.adapters.blobstores.cached import CachedStore
from mqinfer.adapters.blobstores.cloud import CloudStore
from mqinfer.adapters.blobstores.diskcache import BUSY, DiskCache
from mqinfer.adapters.blobstores.folder import FolderStore
from mqinfer.blob import Blob, digest_of
from mqinfer.counts import BlobCacheMetrics
from mqinfer.errors import BlobNotFound, BlobTooLarge, ConfigurationError, Unavailable
from mqinfer.observe import Metrics
from mqinfer.testing import nats_only, until
from tests.support.s3 import s3_config

LEAF = random.Random(4).randbytes(100_000)
DIGEST = hashlib.sha256(LEAF).hexdigest()
ROOT = str(Path(__file__).parents[2])
OWN = f"sha256/{DIGEST[:2]}/{DIGEST}"


class Far:
    """A store that counts what is asked of it, and waits where it is told to."""

    origin = "far"

    def __init__(self, **blobs):
        self.blobs = {path: (data, f'"{len(data)}-{path}"') for path, data in blobs.items()}
        self.questions = self.transfers = self.puts = 0
        self.go = asyncio.Event()
        self.go.set()
        self.trouble = None

    async def fetch(self, path, *, unless="", max_bytes=None):
        self.questions += 1
        await self.go.wait()
        if self.trouble is not None:
            raise self.trouble
        if path not in self.blobs:
            raise BlobNotFound(path)
        data, version = self.blobs[path]
        if unless and version == unless:
            return None
        if max_bytes is not None and len(data) > max_bytes:
            raise too_large(path, len(data), max_bytes)
        self.transfers += 1
        return Found(data, version)

    async def put(self, path, data):
        self.puts += 1
        self.blobs[path] = (data, f'"{self.puts}"')

    async def exists(self, path):
        return path in self.blobs

    async def close(self):
        self.closed = True


@pytest.fixture
async def through(tmp_path):
    """Make a store that is read through the cache of this test, as another process has it."""
    opened = []

    def make(far, limit=10_000_000):
        opened.append(CachedStore(far, DiskCache(str(tmp_path / "cache"), limit), counts()))
        return opened[-1]

    yield make
    for store in opened:
        await store.close()


def counts():
    return BlobCacheMetrics()


def told(store):
    found = store._counts
    return found.hits, found.hit_bytes, found.misses, found.miss_bytes


def files(store):
    """The names of the blobs, and of what is not one yet."""
    return sorted(name for name in os.listdir(store._cache.home) if name != "used")  # noqa: PTH208


def write(path, data):
    Path(path).write_bytes(data)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)  # noqa: PTH116


@contextlib.contextmanager
def running(*codes):
    """Processes, each with code of its own; they are dead at the end."""
    processes = [subprocess.Popen([sys.executable, "-c", code]) for code in codes]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def taken(cache):
    return sum(diskcache._blocks(entry.stat().st_size) for entry in blobs_of(cache))


def blobs_of(cache):
    return [entry for entry in os.scandir(cache.home) if entry.name != "used"]


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "questions"), [("p1/0.png", 5), (OWN, 1)])
async def test_five_readers_fetch_once(through, path, questions):
    """The bytes once; whether they are still those, each time, unless the path says it."""
    far = Far(**{path: LEAF})
    for _ in range(5):
        assert await through(far).get(path) == LEAF
    assert (far.transfers, far.questions) == (1, questions)


async def test_what_is_counted(through):
    far = Far(a=b"12345")
    store = through(far)
    for _ in range(3):
        await store.get("a")
    assert told(store) == (2, 10, 1, 5)


async def test_a_blob_that_is_replaced_is_never_the_old_one(through):
    far = Far()
    one, other = through(far), through(far)
    for data in (b"old", b"new", b"newest"):
        await one.put("a", data)
        assert await other.get("a") == data
        assert await one.get("a") == data
    assert far.transfers == 3
    assert await other.exists("a")


async def test_a_blob_that_is_deleted_is_gone(through):
    far = Far(**{"a": b"1", OWN: LEAF})
    store = through(far)
    assert await store.get("a") + await store.get(OWN) == b"1" + LEAF
    far.blobs.clear()
    with pytest.raises(BlobNotFound):
        await store.get("a")
    # Its bytes cannot be others, so it is believed for a minute.
    assert await store.get(OWN) == LEAF
    (left,) = files(store)
    past = time.time() - cached.TRUSTED - 1
    os.utime(f"{store._cache.home}/{left}", (time.time(), past))
    with pytest.raises(BlobNotFound):
        await store.get(OWN)
    assert files(store) == []


async def test_a_copy_that_the_store_confirms_is_believed_again(through):
    far = Far(**{OWN: LEAF})
    store = through(far)
    await store.get(OWN)
    (name,) = files(store)
    for confirmed in (time.time() - 1000, time.time() + 1000):  # long ago; the clock went back
        os.utime(f"{store._cache.home}/{name}", (time.time(), confirmed))
        before = far.questions
        assert [await store.get(OWN) for _ in range(3)] == [LEAF] * 3
        assert far.questions == before + 1
    assert far.transfers == 1


async def test_an_outage_is_an_outage(through):
    far = Far(a=b"1")
    store = through(far)
    await store.get("a")
    far.trouble = Unavailable("away")
    for path in ("a", "b"):
        with pytest.raises(Unavailable):
            await store.get(path)
    far.trouble = None
    assert await store.get("a") == b"1"
    assert far.transfers == 1


@pytest.mark.parametrize("path", ["a", OWN])
async def test_a_readers_limit_holds_for_copies_too(through, path):
    store = through(Far(**{path: LEAF}))
    for _ in range(2):
        with pytest.raises(BlobTooLarge, match="has 100000 bytes, more than the 99999"):
            await store.get(path, max_bytes=99_999)
        assert await store.get(path, max_bytes=100_000) == LEAF


async def test_what_is_not_what_its_path_says_is_not_kept(through):
    far = Far(**{OWN: b"something else"})
    store = through(far)
    for _ in range(2):
        assert await store.get(OWN) == b"something else"
    assert (far.transfers, files(store)) == (2, [])


async def test_without_a_version_only_digests_are_kept(through):
    far = Far(**{"a": b"1", OWN: LEAF})
    far.blobs = {path: (data, "") for path, (data, _) in far.blobs.items()}
    store = through(far)
    for _ in range(2):
        assert await store.get("a") == b"1"
        assert await store.get(OWN) == LEAF
    assert far.transfers == 3


def test_which_paths_say_what_they_hold():
    blob = Blob(LEAF)
    assert digest_of(OWN) == DIGEST
    for path in ("a", f"x/{OWN}", f"{OWN}/x", OWN.upper(), f"sha256/00/{DIGEST}", f"{OWN}\n"):
        assert digest_of(path) in (None, DIGEST if path == OWN else None), path

    class Store:
        async def put(self, path, data):
            assert digest_of(path) == DIGEST

    asyncio.run(blob.save(Store(), inline_limit=-1))


# --- many at once ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["a", OWN])
@pytest.mark.parametrize("processes", [1, 5])
async def test_all_who_want_a_blob_at_once_fetch_it_once(through, path, processes):
    far = Far(**{path: LEAF})
    far.go.clear()
    stores = [through(far) for _ in range(processes)]
    readers = [asyncio.create_task(stores[n % processes].get(path)) for n in range(20)]
    await until(lambda: far.questions)
    far.go.set()
    assert await asyncio.gather(*readers) == [LEAF] * 20
    assert far.transfers == 1


async def test_what_another_kept_between_a_look_and_a_claim_is_not_fetched_again(through):
    far = Far(**{OWN: LEAF})
    late, quick = through(far), through(far)
    turn, looked = late._turn, asyncio.Event()

    async def later(key):
        looked.set()
        await until(lambda: far.transfers == 1 and not quick._flights)
        return await turn(key)

    late._turn = later
    reading = asyncio.create_task(late.get(OWN))
    await looked.wait()
    assert [await quick.get(OWN), await reading] == [LEAF, LEAF]
    assert far.transfers == 1


async def test_processes_that_start_together_fetch_once(tmp_path):
    """Five of them, on one blob; each fetch is a line in a file and takes a while."""
    code = f"""
import asyncio, sys
sys.path.insert(0, {ROOT!r})
from tests.adapters.test_blobcache import *
class Slow(Far):
    async def fetch(self, path, unless="", max_bytes=None):
        if unless == "v1":
            return None
        with open({str(tmp_path / "fetches")!r}, "a") as file:
            file.write("x")
        await asyncio.sleep(0.3)
        return Found(b"leaf" * 1000, "v1")
async def main():
    store = CachedStore(Slow(), DiskCache({str(tmp_path / "cache")!r}, 10**7), counts())
    cached._OTHERS = 60
    assert await store.get("a") == b"leaf" * 1000
    await store.close()
asyncio.run(main())
"""
    with running(code, code, code, code, code) as processes:
        ends = [await asyncio.to_thread(process.wait, 60) for process in processes]
    assert ends == [0] * 5
    assert (tmp_path / "fetches").read_text() == "x"


async def test_who_fetches_may_be_cancelled(through):
    far = Far(a=LEAF)
    far.go.clear()
    store = through(far)
    first = asyncio.create_task(store.get("a"))
    await until(lambda: far.questions)
    others = [asyncio.create_task(store.get("a")) for _ in range(3)]
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    far.go.set()
    assert await asyncio.gather(*others) == [LEAF] * 3
    assert await through(far).get("a") == LEAF
    await until(lambda: len(files(store)) == 1 and not files(store)[0].endswith(".part"))


async def test_who_waits_may_be_cancelled(through):
    far = Far(a=LEAF)
    far.go.clear()
    one, other = through(far), through(far)
    first = asyncio.create_task(one.get("a"))
    await until(lambda: far.questions)
    waiting = [asyncio.create_task(store.get("a")) for store in (one, other)]
    await until(lambda: other._flights)
    for task in waiting:
        task.cancel()
    assert all(
        isinstance(found, asyncio.CancelledError)
        for found in await asyncio.gather(*waiting, return_exceptions=True)
    )
    far.go.set()
    assert await first == LEAF
    assert await other.get("a") == LEAF
    assert far.transfers == 1


async def test_an_error_is_everybodys_own(through):
    store = through(Far())
    found = await asyncio.gather(*(store.get("a") for _ in range(5)), return_exceptions=True)
    assert {type(error) for error in found} == {BlobNotFound}
    await until(lambda: files(store) == [])


async def test_one_that_is_stopped_while_it_fetches_holds_nobody_up_for_long(through, monkeypatch):
    monkeypatch.setattr(cached, "_OTHERS", 0.05)
    far = Far(a=LEAF)
    store = through(far)
    other = DiskCache(str(Path(store._cache.home).parent), 10_000_000)
    key = hashlib.sha256(b"far\0a").hexdigest()
    claim = other.claim(key)
    assert claim != BUSY
    assert await store.get("a") == LEAF
    assert far.transfers == 1
    assert other.keep(key, claim, far.blobs["a"][1], LEAF)
    assert await store.get("a") == LEAF
    assert far.transfers == 1


# --- bounded --------------------------------------------------------------------------------------


def put(cache, name, data):
    key = hashlib.sha256(name.encode()).hexdigest()
    while (claim := cache.claim(key)) == BUSY:  # another looks whether its writer is dead
        time.sleep(0.001)
    return cache.keep(key, claim, "v", data)


def has(cache, name):
    return cache.read(hashlib.sha256(name.encode()).hexdigest()) is not None


@given(sizes=st.lists(st.integers(0, 120_000), min_size=1, max_size=60))
@settings(max_examples=40)
def test_never_more_than_the_limit(tmp_path_factory, sizes):
    cache = DiskCache(str(tmp_path_factory.mktemp("cache")), 200_000)
    for number, size in enumerate(sizes):
        kept = put(cache, str(number), bytes(size))
        assert kept == has(cache, str(number))
        assert kept
        assert taken(cache) <= 200_000


def test_the_least_recently_used_go_first(tmp_path):
    cache = DiskCache(str(tmp_path), 1_000_000)
    for name in "abcdefghi":
        assert put(cache, name, bytes(100_000))
    assert has(cache, "a")  # used just now
    assert has(cache, "b")
    for name in "jk":
        assert put(cache, name, bytes(100_000))
    assert [name for name in "abcdefghijk" if has(cache, name)] == list("abefghijk")


def test_one_that_is_larger_than_the_cache_passes_through(tmp_path):
    cache = DiskCache(str(tmp_path), 1_000_000)
    assert put(cache, "small", b"1")
    assert not put(cache, "large", bytes(1_000_000))
    assert has(cache, "small")
    assert len(blobs_of(cache)) == 1


async def test_a_large_one_is_read_all_the_same(through):
    far = Far(a=bytes(2_000_000))
    store = through(far, limit=1_000_000)
    for _ in range(2):
        assert await store.get("a") == bytes(2_000_000)
    assert files(store) == []


WRITER = """
import os, random, sys
sys.path.insert(0, {root!r})
from tests.adapters.test_blobcache import *
cache, random = DiskCache({folder!r}, 1_000_000), random.Random({seed})
for number in range(300):
    put(cache, f"{seed}-{{number}}", os.urandom(random.randrange(60_000)))
"""


async def test_the_limit_holds_for_many_processes_that_write_at_once(tmp_path):
    cache = DiskCache(str(tmp_path), 1_000_000)
    codes = [WRITER.format(root=ROOT, folder=str(tmp_path), seed=seed) for seed in range(4)]
    with running(*codes) as processes:
        await until(lambda: os.path.isdir(cache.home))  # noqa: PTH112
        while any(process.poll() is None for process in processes):
            # Not one moment: what is renamed while this looks may be seen twice.
            seen = 0
            for entry in blobs_of(cache):
                with contextlib.suppress(FileNotFoundError):
                    seen += diskcache._blocks(entry.stat().st_size)
            assert seen <= 1_000_000 + 4 * 64 * 1024
            await asyncio.sleep(0.01)
    assert [process.returncode for process in processes] == [0] * 4
    assert 500_000 < taken(cache) <= 1_000_000


async def test_a_killed_writer_leaves_a_part_that_goes_and_nothing_else(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {ROOT!r})
from tests.adapters.test_blobcache import *
diskcache.os.rename = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
put(DiskCache({str(tmp_path)!r}, 1_000_000), "a", bytes(300_000))
"""
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], timeout=60)
    assert ended.returncode == -signal.SIGKILL
    cache = DiskCache(str(tmp_path), 1_000_000)
    (part,) = blobs_of(cache)
    assert part.name.endswith(".part")
    assert not has(cache, "a")
    for number in range(8):  # its 300 kB are counted until room is made
        assert put(cache, str(number), bytes(100_000))
    assert len(blobs_of(cache)) == 8
    assert all(has(cache, str(number)) for number in range(8))
    assert taken(cache) <= 1_000_000


async def test_what_a_killed_writer_was_at_is_fetched_by_the_next_at_once(through):
    store = through(Far(a=LEAF))
    store._cache._make_home()
    key = hashlib.sha256(b"far\0a").hexdigest()
    write(f"{store._cache.home}/{key}.part", b"half" * 100_000)
    assert await store.get("a") == LEAF
    assert files(store) == [key]
    assert await store.get("a") == LEAF
    assert told(store)[0] == 1


# --- a disk that does not work --------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
async def test_a_full_disk_fails_no_read(through, monkeypatch, code):
    far = Far(a=LEAF, b=LEAF)
    store = through(far)

    def full(handle, data):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(diskcache.os, "write", full)
    monkeypatch.setattr(cached, "_AGAIN", 0.0)
    with capture_logs() as logs:
        for _ in range(5):
            assert await store.get("a") == LEAF
    assert logs[0]["event"] == "the blob cache cannot be used; blobs are read from the store"
    assert logs[0]["reason"] == os.strerror(code)
    assert files(store) == []
    monkeypatch.undo()
    assert await store.get("a") == LEAF
    assert len(files(store)) == 1


async def test_a_disk_that_does_not_work_is_left_alone_for_a_while(through, monkeypatch):
    store = through(Far(a=LEAF))
    tried = []

    def refused(key):
        tried.append(key)
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(store._cache, "claim", refused)
    with capture_logs() as logs:
        for _ in range(5):
            assert await store.get("a") == LEAF
    assert len(tried) == 1
    (line,) = logs
    assert (line["log_level"], line["reason"]) == ("warning", "Permission denied")
    assert line["folder"] == store._cache.home


def a_file(home, elsewhere):
    home.parent.write_bytes(b"")


def a_link(home, elsewhere):
    home.parent.mkdir()
    home.symlink_to(elsewhere)


def a_link_to_nothing(home, elsewhere):
    home.parent.mkdir()
    home.symlink_to(elsewhere / "nothing")


@pytest.mark.parametrize("something", [a_file, a_link, a_link_to_nothing])
async def test_what_is_in_the_folders_place_is_not_used(through, tmp_path, something):
    (tmp_path / "theirs").mkdir()
    store = through(Far(a=LEAF))
    something(Path(store._cache.home), tmp_path / "theirs")
    with capture_logs() as logs:
        for _ in range(3):
            assert await store.get("a") == LEAF
    assert len(logs) == 1
    assert os.listdir(tmp_path / "theirs") == []  # noqa: PTH208


async def test_another_users_folder_is_refused(through, monkeypatch):
    store = through(Far(a=LEAF))
    found = os.stat_result((stat.S_IFDIR | 0o777, 0, 0, 1, os.geteuid() + 1, 0, 0, 0, 0, 0))
    monkeypatch.setattr(diskcache.os, "lstat", lambda path: found)
    with capture_logs() as logs:
        assert await store.get("a") == LEAF
    assert "not a folder of this user's own" in logs[0]["reason"]


async def test_a_disk_that_hangs_costs_one_wait(through, monkeypatch):
    monkeypatch.setattr(cached, "_DISK", 0.05)
    store = through(Far(a=LEAF))
    go = threading.Event()
    monkeypatch.setattr(store._cache, "read", lambda *_: go.wait(60))
    with capture_logs() as logs:
        for _ in range(3):
            assert await store.get("a") == LEAF
    go.set()
    assert len(logs) == 1


async def test_a_folder_that_is_deleted_is_made_again(through):
    far = Far(a=LEAF, b=LEAF)
    store = through(far)
    await store.get("a")
    shutil.rmtree(Path(store._cache.home).parent)
    for path in ("a", "b", "a", "b"):
        assert await store.get(path) == LEAF
    assert far.transfers == 3
    assert len(files(store)) == 2


async def test_a_folder_that_is_deleted_while_a_blob_is_fetched(through):
    far = Far(a=LEAF)
    far.go.clear()
    store = through(far)
    reading = asyncio.create_task(store.get("a"))
    await until(lambda: far.questions)
    shutil.rmtree(store._cache.home)
    far.go.set()
    with capture_logs() as logs:
        assert await reading == LEAF
    assert not logs
    assert await store.get("a") == LEAF
    assert len(files(store)) == 1


def spoil(path, damage):
    content = Path(path).read_bytes()
    write(
        path,
        {
            "flipped": content[:-1] + bytes([content[-1] ^ 1]),
            "short": content[:-1],
            "long": content + b"x",
            "empty": b"",
            "other": b"x" * 500,
        }[damage],
    )


@pytest.mark.parametrize("damage", ["flipped", "short", "long", "empty", "other"])
async def test_what_the_disk_spoilt_is_fetched_anew(through, damage):
    store = through(Far(a=LEAF))
    await store.get("a")
    (name,) = files(store)
    spoil(f"{store._cache.home}/{name}", damage)
    for _ in range(2):
        assert await store.get("a") == LEAF
    assert told(store)[2] == 2


async def test_only_the_user_sees_it_and_nothing_of_others_is_touched(through, tmp_path):
    (tmp_path / "cache").mkdir()
    mine = tmp_path / "cache" / "thesis.txt"
    mine.write_bytes(bytes(5_000_000))
    far = Far(**{str(n): bytes(100_000) for n in range(30)})
    store = through(far, limit=1_000_000)
    home = Path(store._cache.home)
    await store.get("0")
    (home / "notes.txt").write_bytes(b"mine, too")
    for number in range(30):
        await store.get(str(number))
    assert mode(home) == 0o700
    assert mine.stat().st_size == 5_000_000
    assert (home / "notes.txt").read_bytes() == b"mine, too"
    assert {mode(home / name) for name in files(store) if "." not in name} == {0o600}


async def test_a_closed_store_still_reads(through):
    far = Far(a=LEAF)
    store = through(far)
    await store.close()
    with capture_logs() as logs:
        assert await store.get("a") == LEAF
    assert not logs
    assert far.closed


# --- as it is set ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["/var/cache", "10GB", ":10GB", "/var/cache:", "/c:10", "/c:lots", "/c:0", "/c:-5GB"]
)
def test_settings_that_make_no_sense_say_what_does(text):
    with pytest.raises(
        ConfigurationError, match=r"MQINFER_BLOB_CACHE=.* such as /var/cache/mqinfer:10GB"
    ):
        Settings.load({"MQINFER_BLOB_CACHE": text})


def test_settings_that_do():
    assert Settings.load({}).blob_cache_bounds is None
    bounds = Settings.load({"MQINFER_BLOB_CACHE": "/c:d/e f:1.5GiB"}).blob_cache_bounds
    assert bounds == ("/c:d/e f", 1_610_612_736)


async def test_a_worker_and_a_client_have_it_and_show_it(
    tmp_path, s3_endpoint, bucket, monkeypatch
):
    for name, value in s3_config(s3_endpoint).items():
        monkeypatch.setenv(f"AWS_{name.upper()}", value)
    async with nats_only(tmp_path / "nats") as found:
        for url in (f"s3://{bucket}", "nats://"):
            chosen = Settings.load(
                {},
                nats_url=found.nats_url,
                blobs=url,
                blob_cache=f"{tmp_path / 'cache'}:10MB",
            )
            async with wiring.services(App("plants"), chosen, "test") as services:
                assert isinstance(services.store, CachedStore)
                await services.store.put("p1/0.png", LEAF)
                for _ in range(5):
                    assert await services.store.get("p1/0.png") == LEAF
                shown = services.metrics.render().decode()
            assert 'mqinfer_blob_cache_hits_total{app="plants"} 4.0' in shown
            assert 'mqinfer_blob_cache_hit_bytes_total{app="plants"} 400000.0' in shown
            assert 'mqinfer_blob_cache_misses_total{app="plants"} 1.0' in shown
            assert 'mqinfer_blob_cache_miss_bytes_total{app="plants"} 100000.0' in shown


async def test_who_has_none_pays_nothing_and_a_folder_needs_none(tmp_path):
    assert b"blob_cache" not in Metrics("plants").render()
    broker = object()
    settings = Settings.load({}, blobs=str(tmp_path), blob_cache=f"{tmp_path / 'cache'}:10MB")
    assert isinstance(wiring.blobs(App("a"), settings, broker), FolderStore)
    assert not (tmp_path / "cache").exists()
    assert isinstance(wiring.blobs(App("a"), Settings.load({}, blobs="s3://b"), broker), CloudStore)
    code = (
        "import sys, mqinfer.adapters.blobs as b; b.open_store('s3://x');"
        "sys.exit('mqinfer.adapters.blobstores.cached' in sys.modules)"
    )
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], timeout=60)
    assert ended.returncode == 0
