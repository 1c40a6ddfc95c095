"""The three servers as programs that are installed on this machine: same ports, same folder.

They get everything from a file or a flag of ours, and nothing from the machine's own configuration.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from mqinfer.stack import programs
from mqinfer.stack.clickhouse.server import ClickHouseServer
from mqinfer.stack.nats import NatsServer
from mqinfer.stack.password import write_private
from mqinfer.stack.ports import HOST
from mqinfer.stack.triton import TritonServer

# The rules of `mqinfer.origin` in ClickHouse's own words: the first that fits a request answers it.
_TURNED_AWAY = """<handler>
            <type>static</type><status>403</status>
            <response_content>a page of another origin may not use this server</response_content>
        </handler>"""
_OURS = (
    r"<Host>regex:([0-9.]+|\[[0-9a-fA-F:.]+\]|[^.:\[]+|[^:]+\.(localhost|internal))(:[0-9]+)?"
    "</Host>"
)
_HANDLERS = f"""\
    <http_handlers>
        <rule><headers><Origin>regex:.+</Origin></headers>{_TURNED_AWAY}</rule>
        <rule>
            <headers><Sec-Fetch-Site>regex:(cross|same)-site</Sec-Fetch-Site></headers>
            {_TURNED_AWAY}
        </rule>
        <rule>
            <url>/ping</url><headers>{_OURS}</headers>
            <handler><type>static</type></handler>
        </rule>
        <rule>
            <headers>{_OURS}</headers>
            <handler>
                <type>dynamic_query_handler</type><query_param_name>query</query_param_name>
            </handler>
        </rule>
    </http_handlers>"""


class NatsOnPath(NatsServer):
    """The nats-server of the PATH; it keeps its streams where the embedded one would."""

    def check(self) -> None:
        """Find it, and ask for its version; see `programs.Program`."""
        self.program = programs.NATS.find()
        self.version = programs.NATS.check(self.program)

    def _executable(self) -> list[str]:
        """Give the beginning of its command line."""
        return programs.NATS.command(self.program or programs.NATS.find())


class TritonOnPath(TritonServer):
    """The tritonserver of the PATH, with the backends that it was installed with."""

    def check(self) -> None:
        """Find it; see `programs.Program`."""
        self._check_models()
        self.program = programs.TRITON.find()

    def _assemble(self) -> None:
        """Leave its backends where they are."""

    def _executable(self) -> list[str]:
        """Give the beginning of its command line."""
        program = self.program or programs.TRITON.find()
        command = programs.TRITON.command(program)
        # It looks in /opt/tritonserver unless told; one that was unpacked elsewhere has its own.
        beside = program.resolve().parent.parent / "backends"
        if beside.is_dir():
            command.append(f"--backend-directory={beside}")
        # What it keeps in shared memory is to be told from what others do.
        return [
            *command,
            f"--backend-config=python,shm-region-prefix-name={self._shared_memory_prefix}",
        ]

    def environment(self) -> Mapping[str, str]:
        """Leave it its own."""
        return {}


class ClickHouseOnPath(ClickHouseServer):
    """The clickhouse of the PATH, on loopback alone, with one user and a folder of its own."""

    @property
    def config_file(self) -> Path:
        """The generated configuration."""
        return self.directory / "config.xml"

    def check(self) -> None:
        """Find it, and ask for its version; see `programs.Program`."""
        self.program = programs.CLICKHOUSE.find()
        self.version = programs.CLICKHOUSE.check(self.program)

    def prepare(self) -> None:
        """Write the configuration: the HTTP interface and no other, users in the same file."""
        folder = self.directory.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        secret = hashlib.sha256(self._password.encode()).hexdigest()
        given = f"<password_sha256_hex>{secret}</password_sha256_hex>"
        text = f"""\
<!-- Written by mqinfer at every start; changes here are lost. -->
<clickhouse>
    <logger><level>information</level><console>1</console></logger>
    <listen_host>{HOST}</listen_host>
    <http_port>{self.port}</http_port>
    <path>{escape(str(folder))}/data/</path>
    <tmp_path>{escape(str(folder))}/data/tmp/</tmp_path>
    <user_files_path>{escape(str(folder))}/data/user_files/</user_files_path>
    <format_schema_path>{escape(str(folder))}/data/format_schemas/</format_schema_path>
    <default_profile>default</default_profile>
    <default_database>default</default_database>
    <mark_cache_size>268435456</mark_cache_size>
{_HANDLERS}
    <profiles><default/></profiles>
    <quotas><default/></quotas>
    <users>
        <{self.user}>
            {given if self._password else "<password/>"}
            <networks><ip>{HOST}</ip></networks>
            <profile>default</profile>
            <quota>default</quota>
        </{self.user}>
    </users>
</clickhouse>
"""
        write_private(self.config_file, text)

    def command(self) -> list[str]:
        """Give the command line."""
        program = self.program or programs.CLICKHOUSE.find()
        return [
            *programs.CLICKHOUSE.command(program),
            f"--config-file={self.config_file.resolve()}",
        ]

    def environment(self) -> Mapping[str, str]:
        """Leave it its own."""
        return {}
