"""Static: pages of the user's own beside the API, on the same origin, so that they need no CORS.

No key is needed to read them, and nothing in the folder is ever at an address of the API's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from starlette.responses import Response
    from starlette.types import Scope

# The first parts of our own addresses, those that are still to come included.
OURS: Final = frozenset(["v1", "docs", "openapi.json", "metrics", "healthz", "readyz"])


class Pages(Mount):
    """The files of a folder, at all addresses but ours; `index.html` is that of its folder.

    Args:
        folder: of the files; a link in it that leads outside is not followed.
    """

    def __init__(self, folder: Path):
        super().__init__("/", app=_Files(directory=folder, html=True))

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether an address may be one of a file."""
        first = scope["path"].removeprefix("/").partition("/")[0]
        return (Match.NONE, {}) if first in OURS else super().matches(scope)


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file, or that there is none; one that we may not read is none."""
        try:
            return await super().get_response(path, scope)
        except HTTPException as error:
            if error.status_code != 401:
                raise
            raise HTTPException(404) from None

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """A file that browsers ask about again, so that a new one is seen at once."""
        found = super().file_response(full_path, stat_result, scope, status_code)
        found.headers["cache-control"] = "no-cache"
        found.headers["x-content-type-options"] = "nosniff"
        return found
