"""Reload: workers that begin anew when code changes, for whoever works on an app.

The supervisor takes a change as it takes a new deployment: the old process is told to end (it
finishes what it has begun, and hands back the rest), and the new one begins when it has. A file
that Python cannot read is told, and the old process goes on until it is mended; a module that
cannot be imported is told by the new process, and the next change is waited for.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mqinfer.errors import ConfigurationError
from mqinfer.supervise.group import Group

_WATCHED = (".py", ".toml")
# What `mqinfer up` keeps there: it writes all the time, and nothing of it is code.
_PASSED_OVER = (".mqinfer", "triton_models")


class Reload:
    """A group whose processes begin anew when a file changes.

    Args:
        group: the processes.
        folder: that is watched, with all that is below it.

    Raises:
        ConfigurationError: what watches is not installed.
    """

    def __init__(self, group: Group, folder: Path):
        try:
            import watchfiles
        except ImportError:
            raise ConfigurationError(
                "--reload needs watchfiles: pip install 'mqinfer[reload]'"
            ) from None
        self.group = group
        self._folder = folder
        self._filter = watchfiles.PythonFilter(
            ignore_paths=[folder / name for name in _PASSED_OVER],
            extra_extensions=_WATCHED,
        )
        self._watch = watchfiles.watch
        self._revisions = itertools.count(1)
        self._changed: set[Path] = set()
        self._unreadable: set[Path] = set()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, a thread watches."""
        ends = threading.Event()

        def watch() -> None:
            for changes in self._watch(
                self._folder, watch_filter=self._filter, stop_event=ends, raise_interrupt=False
            ):
                self.touched(Path(path) for _, path in changes)

        thread = threading.Thread(target=watch, name="mqinfer-reload", daemon=True)
        thread.start()
        _log().info("begins anew when code changes", folder=str(self._folder))
        try:
            yield
        finally:
            ends.set()
            thread.join(5.0)

    def touched(self, files: Iterator[Path]) -> None:
        """These have changed."""
        with self._lock:
            self._changed.update(files)

    def changed(self) -> Sequence[Group] | None:
        """The group as it is now, if it is another than it was; for the supervisor."""
        with self._lock:
            changed, self._changed = self._changed, set()
        if not changed:
            return None
        for file in changed:
            self._read(file)
        if self._unreadable:
            return None
        names = sorted(os.path.relpath(file, self._folder) for file in changed)
        _log().info("code has changed", files=", ".join(names[:5]))
        self.group = replace(self.group, revision=str(next(self._revisions)))
        return [self.group]

    def _read(self, file: Path) -> None:
        """See whether Python can read a file."""
        self._unreadable.discard(file)
        if file.suffix != ".py":
            return
        try:
            compile(file.read_bytes(), file, "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            self._unreadable.add(file)
            text = f"{file}: {type(error).__name__}: {error}"
            _log().error("what runs goes on until this is mended", error=text)
        except OSError:
            pass  # it is gone


def _log() -> Any:
    import structlog  # which `--help` need not wait for

    return structlog.get_logger("mqinfer.supervisor")
