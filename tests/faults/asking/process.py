"""A worker or a gateway of the app, as its command runs it, that can be told to die at a step.

`python -m tests.faults.asking.process worker --stage mqinfer-tracker --folder F --slot S`. SIGUSR1
arms what stands in the file `<slot>.point`; a step is what `tests.support.deaths` says.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mqinfer import cli, signals
from mqinfer.cli.child import bind_to_supervisor
from tests.faults.fuse import Fuse
from tests.support.deaths import at_each_step

STEP = "between two steps"


def main() -> None:
    """Run a command until SIGTERM."""
    bind_to_supervisor()
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--slot", required=True)
    ours, command = parser.parse_known_args()
    fuse = Fuse()
    at_each_step(lambda: fuse.passes(STEP))
    point = ours.folder / f"{ours.slot}.point"
    signal.signal(signal.SIGUSR1, lambda *_: fuse.arm(point.read_text()))
    handed = signals.handed_to

    @contextmanager
    def begun(*calls: Any) -> Iterator[None]:
        """From now on a signal is heard by what runs."""
        with handed(*calls):
            (ours.folder / f"{ours.slot}.ready").write_text(str(os.getpid()))
            yield

    signals.handed_to = begun
    sys.argv = ["mqinfer", *command]
    raise SystemExit(cli.main())


if __name__ == "__main__":
    main()
