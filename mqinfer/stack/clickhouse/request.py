"""What an HTTP request says: the parameters of its URL and form, its headers, its body."""

from __future__ import annotations

import base64
import binascii
import functools
import hmac
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request as HttpRequest

from mqinfer.stack.clickhouse import codec
from mqinfer.stack.clickhouse.body import Statement, decoded, read_statement
from mqinfer.stack.clickhouse.engine import Request
from mqinfer.stack.clickhouse.errors import Code, EngineError
from mqinfer.stack.clickhouse.external import SUFFIXES, ExternalTable, external_table
from mqinfer.stack.clickhouse.sessions import Wanted

_LONGEST_SESSION = 3600.0
_LARGEST_FIELD = 1 << 26
# URL parameters that are not settings of the engine, or settings that are obeyed here.
_NOT_SETTINGS = frozenset(
    (
        "add_http_cors_header",
        "buffer_size",
        "cancel_http_readonly_queries_on_client_close",
        "client_protocol_version",
        "close_session",
        "compress",
        "database",
        "decompress",
        "default_format",
        "enable_http_compression",
        "http_headers_progress_interval_ms",
        "http_make_head_request",
        "http_native_compression_disable_checksumming_on_decompress",
        "http_response_buffer_size",
        "http_write_exception_in_output_format",
        "http_zlib_compression_level",
        "password",
        "query",
        "query_id",
        "quota_key",
        "replace_running_query",
        "replace_running_query_max_wait_ms",
        "role",
        "send_progress_in_http_headers",
        "session_check",
        "session_id",
        "session_timeout",
        "stacktrace",
        "user",
        "wait_end_of_query",
    )
)


def is_true(parameters: Mapping[str, str], name: str) -> bool:
    """Tell whether a parameter is given and on."""
    return parameters.get(name, "0").lower() in ("1", "true")


def authenticate(http: HttpRequest, user: str, password: str) -> None:
    """Let the one user in.

    Raises:
        EngineError: It is somebody else, or another password.
    """
    given, key = user, ""
    header = http.headers.get("authorization", "")
    if header.lower().startswith("basic "):
        try:
            given, _, key = base64.b64decode(header[6:]).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise EngineError("Invalid Authorization header.", Code.BAD_ARGUMENTS) from error
    elif "x-clickhouse-user" in http.headers:
        given = http.headers["x-clickhouse-user"]
        key = http.headers.get("x-clickhouse-key", "")
    elif "user" in http.query_params:
        given = http.query_params["user"]
        key = http.query_params.get("password", "")
    right = hmac.compare_digest(key.encode(), password.encode())
    if (given or user) != user or not right:
        raise EngineError(
            f"{given}: Authentication failed: password is incorrect, or there is no user "
            "with such name.",
            Code.AUTHENTICATION_FAILED,
        )


class Incoming:
    """One request; a context that keeps its files until the query has ended.

    Args:
        http: As it came.
        query_id: Of the query.
        folder: For files.
        in_thread: Runs a function that may wait for the disk.
    """

    def __init__(
        self,
        http: HttpRequest,
        query_id: str,
        folder: Path,
        in_thread: Callable[..., Awaitable[Any]],
    ) -> None:
        self._http = http
        self._query_id = query_id
        self._folder = folder
        self._in_thread = in_thread
        self._files = ExitStack()
        self._tables: dict[str, str] = {}  # the file of each external table
        self.parameters: dict[str, str] = dict(http.query_params)

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, *_error: object) -> None:
        self._files.close()

    async def read(self) -> Request:
        """Read it to its end.

        Raises:
            EngineError: It cannot be understood.
            ClientDisconnect: The client went away.
        """
        if self._http.headers.get("content-type", "").startswith("multipart/form-data"):
            await self._read_form()
            statement = Statement(self.parameters.get("query", "").encode())
        else:
            statement = await self._read_body()
        return _request(self, statement)

    async def _read_body(self) -> Statement:
        decoders: list[codec.Decoder] = []
        try:
            http = codec.decoder(self._http.headers.get("content-encoding", ""))
        except codec.CodecError as error:
            raise EngineError(str(error), Code.CANNOT_DECOMPRESS) from error
        if http is not None:
            decoders.append(http)
        if is_true(self.parameters, "decompress"):
            name = "http_native_compression_disable_checksumming_on_decompress"
            decoders.append(codec.FrameDecoder(checked=not is_true(self.parameters, name)))
        return await read_statement(
            self.parameters.get("query", "").encode(),
            decoded(self._http.stream(), decoders),
            self._new_file,
            self._in_thread,
        )

    async def _read_form(self) -> None:
        """Take the fields as parameters and the files as external tables."""
        try:
            form = await self._http.form(
                max_files=float("inf"), max_fields=float("inf"), max_part_size=_LARGEST_FIELD
            )
        except MultiPartException as error:
            raise EngineError(f"Bad form: {error.message}", Code.BAD_ARGUMENTS) from error
        for name, part in form.multi_items():
            if isinstance(part, UploadFile):
                file = self._new_file()
                copy = functools.partial(shutil.copyfileobj, part.file, file, 1 << 20)
                await self._in_thread(copy)
                await self._in_thread(file.flush)
                self._tables[name] = file.name
            else:
                self.parameters[name] = part
        await form.close()

    def _new_file(self) -> IO[bytes]:
        return self._files.enter_context(tempfile.NamedTemporaryFile(dir=self._folder))

    @property
    def tables(self) -> tuple[ExternalTable, ...]:
        """What came along as tables."""
        return tuple(
            external_table(name, path, self.parameters) for name, path in self._tables.items()
        )

    @property
    def wanted(self) -> Wanted:
        """The session, database and settings."""
        parameters = self.parameters
        try:
            timeout = float(parameters.get("session_timeout", "60"))
        except ValueError:
            timeout = -1.0
        if not 0 <= timeout <= _LONGEST_SESSION:
            raise EngineError(
                f"Invalid session timeout: 0 to {_LONGEST_SESSION:.0f} seconds.",
                Code.INVALID_SESSION_TIMEOUT,
            )
        headers: Headers = self._http.headers
        ours = {name + suffix for name in self._tables for suffix in SUFFIXES}
        return Wanted(
            query_id=self._query_id,
            session_id=parameters.get("session_id", ""),
            timeout=timeout,
            check=is_true(parameters, "session_check"),
            close=is_true(parameters, "close_session"),
            database=parameters.get("database") or headers.get("x-clickhouse-database", ""),
            settings={
                name: value
                for name, value in parameters.items()
                if name not in _NOT_SETTINGS and not name.startswith("param_") and name not in ours
            },
        )

    @property
    def default_format(self) -> str:
        """Of the answer, where the statement names none."""
        named = self.parameters.get("default_format") or self._http.headers.get(
            "x-clickhouse-format"
        )
        return named or "TabSeparated"

    @property
    def read_only(self) -> bool:
        """Whether the method says that nothing is to be changed."""
        return self._http.method != "POST"


def _request(incoming: Incoming, statement: Statement) -> Request:
    parameters = incoming.parameters
    revision = parameters.get("client_protocol_version", "0")
    return Request(
        statement=statement.text,
        wanted=incoming.wanted,
        insert=statement.insert,
        data=statement.path,
        default_format=incoming.default_format,
        parameters={
            name.removeprefix("param_"): value
            for name, value in parameters.items()
            if name.startswith("param_")
        },
        tables=incoming.tables,
        revision=int(revision) if revision.isdecimal() else 0,
        read_only=incoming.read_only,
        replace=is_true(parameters, "replace_running_query"),
    )
