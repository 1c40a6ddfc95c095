"""Repository: has Triton take up what changes in a model repository, as its own polling would.

Triton polls or loads on request, never both. Loading on request is needed to bring back a model
whose process died; so the embedded server does that, and who looks for changes is this. It leaves
out `__pycache__`, which Python writes into the folder of a model that it has just loaded.

Needs nothing but Python, so that it runs beside a Triton in a container as well (see compose/):

    python repository.py MODELS HOST PORT
"""

from __future__ import annotations

import http.client
import sys
import threading
import urllib.parse
from pathlib import Path

# Seconds between two looks. What changed is taken up when the next look finds it the same, so that
# a model which is being copied is not loaded in parts.
_LOOKS = 0.4
# Seconds that loading a model may take.
_LOAD_SECONDS = 600.0

# The files of a model: name, time of the last change, size.
Files = frozenset[tuple[str, int, int]]


class RepositoryWatch:
    """Looks at a repository from a thread of its own, since a server is bound to no event loop.

    Attributes:
        refused: the server's words, by model, for what changed and was not loaded since.

    Args:
        models: the repository; what lies in it now is loaded by the server itself.
        port: the server's HTTP port.
        host: its address.
        headers: what it wants to see with each request.
        afresh: have all of it loaded nevertheless, which changes nothing where it is so already.
    """

    def __init__(
        self,
        models: Path,
        port: int,
        *,
        host: str = "127.0.0.1",
        headers: dict[str, str] | None = None,
        afresh: bool = False,
    ):
        self._models = models
        self._port = port
        self._host = host
        self._headers = headers or {}
        self._before = scan(models)
        self._loaded = {} if afresh else dict(self._before)
        self._stop = threading.Event()
        self.refused: dict[str, str] = {}

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self.run, name="model repository", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def loaded(self) -> dict[str, Files]:
        """What the server was asked to load last, or had when it started, as it lay then."""
        return dict(self._loaded)

    def look(self) -> None:
        """Have taken up what changed, and was the same at the look before."""
        now = scan(self._models)
        for name in sorted(now.keys() | self._loaded.keys()):
            files = now.get(name)
            if files == self._loaded.get(name) or files != self._before.get(name):
                continue
            if not self._ask(name, "unload" if files is None else "load"):
                continue
            if files is None:
                del self._loaded[name]
            else:
                self._loaded[name] = files
        self._before = now

    def run(self) -> None:
        """Look until `stop`."""
        while not self._stop.wait(_LOOKS):
            self.look()

    def _ask(self, name: str, what: str) -> bool:
        """Load or unload a model; False when there is no server to answer.

        One that does not load is tried again when it has changed; the server says why in its index.
        """
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_LOAD_SECONDS)
        try:
            path = f"/v2/repository/models/{urllib.parse.quote(name, safe='')}/{what}"
            connection.request("POST", path, body=b"{}", headers=self._headers)
            response = connection.getresponse()
            said = response.read().decode(errors="replace")
            if what == "load" and response.status >= 400:
                self.refused[name] = said
            else:
                self.refused.pop(name, None)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return True


def scan(models: Path) -> dict[str, Files]:
    """The models of a repository with their files; what vanishes meanwhile is left out."""
    found: dict[str, Files] = {}
    try:
        folders = [one for one in models.iterdir() if one.is_dir() and one.name[0] != "."]
    except OSError:
        return found
    for folder in folders:
        if files := files_of(folder):
            found[folder.name] = files
    return found


def files_of(folder: Path) -> Files:
    """The files of a model, as `scan` has them; none where there is no such folder."""
    files = set()
    for file in folder.rglob("*"):
        if "__pycache__" in file.parts:
            continue
        try:
            stat = file.stat()
        except OSError:
            continue
        if not file.is_dir():
            files.add((str(file.relative_to(folder)), stat.st_mtime_ns, stat.st_size))
    return frozenset(files)


if __name__ == "__main__":
    RepositoryWatch(Path(sys.argv[1]), int(sys.argv[3]), host=sys.argv[2], afresh=True).run()
