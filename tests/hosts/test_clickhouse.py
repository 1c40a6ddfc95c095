"""Four ClickHouse servers, two shards of two replicas, and their ZooKeeper.

Made for Debian's server of 2018: too old for most of our SQL, but it has what the embedded engine
has not: other servers to lay rows on, ON CLUSTER, and replicas that fetch. So tables are made,
written, read and dropped by our statements as a cluster is told them, of fewer columns.

    CLICKHOUSE_SERVER=/usr/sbin/clickhouse-server ZOOKEEPER_CLASSPATH=a.jar:b.jar pytest ...
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from mqinfer.errors import TableError
from mqinfer.stack.ports import free_port
from mqinfer.tables.sharded import Shards, told
from tests.support.clickhouse import ask

AT = Shards("plants", "garden", 2)
PATIENCE = 60.0
MADE = (
    "CREATE TABLE IF NOT EXISTS `leaf__storage` (`position` String, `note` String, `_id` String, "
    "`_day` Date, `_visible` UInt8, `_version` UInt64)\n"
    "ENGINE = ReplacingMergeTree(_version)\nPARTITION BY _day\nORDER BY (`position`, `_id`)"
)
QUEUE = "SELECT name FROM system.zookeeper WHERE path = '/clickhouse'"
SHOWN = "SELECT count() AS n, sum(_version) AS v FROM leaf__storage FINAL WHERE _visible = 1"


@contextmanager
def running(*command: str, folder: Path) -> Iterator[None]:
    with (folder / "out").open("w") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out)
        try:
            yield
        finally:
            process.kill()
            process.wait()


def until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if holds():
                return
        except (OSError, TableError):
            pass
        assert time.monotonic() < end, what
        time.sleep(0.1)


def configured(folder: Path, ports: list[int], shard: int, cluster: str, keeper: int) -> str:
    http, tcp, between = ports
    users, config = folder / "users.xml", folder / "config.xml"
    users.write_text(
        "<yandex><profiles><default>"
        "<insert_distributed_sync>1</insert_distributed_sync></default></profiles><quotas><default/></quotas><users><default>"
        "<password/><networks><ip>::/0</ip></networks><profile>default</profile>"
        "<quota>default</quota></default></users></yandex>"
    )
    config.write_text(
        f"<yandex><logger><level>error</level><log>{folder}/log</log></logger>"
        f"<http_port>{http}</http_port><tcp_port>{tcp}</tcp_port>"
        f"<interserver_http_port>{between}</interserver_http_port>"
        "<interserver_http_host>127.0.0.1</interserver_http_host><listen_host>127.0.0.1</listen_host>"
        f"<path>{folder}/data/</path><tmp_path>{folder}/tmp/</tmp_path>"
        f"<users_config>{users}</users_config><default_profile>default</default_profile>"
        "<default_database>default</default_database><mark_cache_size>50000000</mark_cache_size>"
        f"<remote_servers><plants>{cluster}</plants></remote_servers>"
        f"<macros><shard>{shard}</shard><replica>{tcp}</replica></macros>"
        f"<zookeeper><node><host>127.0.0.1</host><port>{keeper}</port></node></zookeeper>"
        "<distributed_ddl><path>/clickhouse/ddl</path></distributed_ddl></yandex>"
    )
    return f"--config-file={config}"


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[str]]:
    """The URLs of the four: two of the first shard, two of the second one."""
    server = os.environ.get("CLICKHOUSE_SERVER") or shutil.which("clickhouse-server")
    classes, java = os.environ.get("ZOOKEEPER_CLASSPATH"), shutil.which("java")
    if not (server and classes and java):
        pytest.skip("no CLICKHOUSE_SERVER, no ZOOKEEPER_CLASSPATH, or no java")
    keeper, ports = free_port(), [[free_port() for _ in range(3)] for _ in range(4)]
    cluster = "".join(
        "<shard><internal_replication>true</internal_replication>"
        + "".join(
            f"<replica><host>127.0.0.1</host><port>{tcp}</port></replica>" for _, tcp, _ in pair
        )
        + "</shard>"
        for pair in (ports[:2], ports[2:])
    )
    urls = [f"http://127.0.0.1:{http}/garden" for http, _, _ in ports]
    with ExitStack() as stack:
        for number in range(5):
            (tmp_path / str(number)).mkdir()
        main = "org.apache.zookeeper.server.ZooKeeperServerMain"
        folder = tmp_path / "4"
        command = (java, "-cp", classes, main, str(keeper), str(folder / "data"))
        stack.enter_context(running(*command, folder=folder))
        # A server that begins before it is there dies of it.
        until(lambda: _listens(keeper), "ZooKeeper listens")
        for number, own in enumerate(ports):
            folder = tmp_path / str(number)
            config = configured(folder, own, number // 2 + 1, cluster, keeper)
            stack.enter_context(running(server, config, folder=folder))
            base = urls[number].removesuffix("garden") + "default"
            # The first one makes the queue of ON CLUSTER, and dies of a statement before that.
            until(lambda base=base: ask(base, QUEUE) != [], "a server starts")
            ask(base, "CREATE DATABASE garden")
        yield urls


def _listens(port: int) -> bool:
    socket.create_connection(("127.0.0.1", port), 1).close()
    return True


def say(url: str, statement: str, urls: list[str]) -> None:
    for one in told(statement, AT):
        # This server drops at once, and knows columns without IF NOT EXISTS.
        one = one.removesuffix(" SYNC").replace("COLUMN IF NOT EXISTS", "COLUMN")
        if one.startswith("ALTER TABLE `leaf__storage`"):
            # It refuses what later ones do by ON CLUSTER to each Distributed table.
            for each in urls:
                ask(each, one.replace(f" ON CLUSTER '{AT.cluster}'", ""))
            continue
        for answer in ask(url, one):
            assert answer["error"] == "", answer


def test_rows_lie_by_their_id_on_real_shards(servers: list[str]) -> None:
    say(servers[0], MADE, servers)
    for url in servers:
        (place,) = ask(url, "SELECT zookeeper_path AS path FROM system.replicas")
        assert place["path"].endswith("/garden/leaf__shard")

    def insert(url: str, ids: range, version: int) -> None:
        rows = (
            f"('p{n % 3}', 'n{version}', 'id{n}', '2026-01-0{1 + n % 2}', 1, {version})"
            for n in ids
        )
        ask(url, f"INSERT INTO leaf__storage VALUES {','.join(rows)}")

    insert(servers[0], range(100), 1)
    insert(servers[2], range(50), 2)  # later copies, through a server of the other shard
    insert(servers[1], range(100), 1)  # a block that was sent before, through another replica
    counts = "SELECT count() AS n, uniqExact(_id) AS ids FROM leaf__shard"
    for pair in (servers[:2], servers[2:]):
        for url in pair:
            ask(url, "SYSTEM SYNC REPLICA leaf__shard")
        one, other = (ask(url, counts)[0] for url in pair)
        assert one == other
        assert 20 < one["ids"] < 80
    for url in servers:
        (found,) = ask(url, "SELECT count() AS n FROM leaf__storage")
        assert found["n"] == 150
        assert ask(url, SHOWN) == [{"n": 100, "v": 150}]
    say(
        servers[1],
        "ALTER TABLE `leaf__storage` ADD COLUMN IF NOT EXISTS `more` String DEFAULT 'x'",
        servers,
    )
    say(servers[3], "OPTIMIZE TABLE `leaf__storage` PARTITION ID '20260101' FINAL", servers)
    assert ask(servers[2], SHOWN + " AND more = 'x'") == [{"n": 100, "v": 150}]
    say(servers[0], "ALTER TABLE `leaf__storage` DELETE WHERE note = 'n2'", servers)
    left = [{"n": 75, "v": 75}]  # the merge of one day had dropped 25 earlier copies
    for url in servers:
        until(lambda url=url: ask(url, SHOWN) == left, "rows are deleted")
    say(servers[2], "DROP TABLE IF EXISTS `leaf__storage`", servers)
    for url in servers:
        assert ask(url, "SELECT name FROM system.tables WHERE database = 'garden'") == []
