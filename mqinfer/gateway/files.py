"""Files: what is uploaded goes to a disk here, and from there into the blob store.

Not much of it is ever in memory, and only what came whole is stored. A file lies under its own
digest, so that one that is sent again is the same; its name's ending stays where it says how rows
are to be read from it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from mqinfer.blob import put_pieces
from mqinfer.gateway import answers, asking, bodies, forms
from mqinfer.gateway.problems import Problem
from mqinfer.gateway.views import encode
from mqinfer.jobs.source import form_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from mqinfer.gateway.site import Site
    from mqinfer.gateway.tenants import Tenant

SPOOL: Final = 4 * 1024**3  # bytes of uploads that lie on the disk here at a time
_PIECE: Final = 1024 * 1024  # bytes that are read from it at a time


class Files:
    """What takes files.

    Args:
        site: that it belongs to.
    """

    def __init__(self, site: Site):
        self._site = site

    async def upload(self, request: Request, tenant: Tenant) -> Response:
        """`POST /v1/files`."""
        if not asking.is_of(request, asking.FORM):
            raise asking.unknown_type("this takes multipart/form-data")
        with self._site.spool.share() as take, ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mqinfer-upload-"))
            coming: dict[str, _Coming] = {}

            async def drained(parts: Sequence[forms.Part]) -> None:
                for part in parts:
                    if part.file:
                        if part.name not in coming:
                            made = _Coming(Path(folder) / str(len(coming)), part.filename)
                            stack.callback(made.file.close)
                            coming[part.name] = made
                        if part.data:
                            await asyncio.to_thread(coming[part.name].add, bytes(part.data))
                    part.data.clear()

            content_type = request.headers.get("content-type", "")
            chunks = bodies.chunks(request, self._site.options.max_upload, take)
            await forms.parts(content_type, chunks, drained)
            if not coming:
                raise Problem(400, "malformed", "the body has no file: a part with a filename")
            told = {name: await self._stored(one, tenant) for name, one in coming.items()}
        return answers.json(encode({"files": told}), 201)

    async def _stored(self, one: _Coming, tenant: Tenant) -> dict[str, Any]:
        await asyncio.to_thread(one.file.flush)
        digest = one.hash.hexdigest()
        path = f"{tenant.prefix}{digest[:2]}/{digest}{one.ending}"
        await put_pieces(self._site.store, path, one.pieces())
        return {"path": path, "size": one.size}


@dataclass(slots=True)
class _Coming:
    """A file as it comes."""

    path: Path
    name: str
    hash: Any = field(default_factory=sha256)
    size: int = 0
    file: IO[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.file = self.path.open("wb")

    def add(self, data: bytes) -> None:
        """Some more of it; in a thread."""
        self.hash.update(data)
        self.file.write(data)
        self.size += len(data)

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it, some at a time."""
        with await asyncio.to_thread(self.path.open, "rb") as file:
            while data := await asyncio.to_thread(file.read, _PIECE):
                yield data

    @property
    def ending(self) -> str:
        """That of its name, where it says how rows are to be read."""
        return Path(self.name).suffix.lower() if form_of(self.name) is not None else ""
