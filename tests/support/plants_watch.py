"""A worker of the plants' `watch` that dies between two steps of what remembers.

`python -m tests.support.plants_watch POINT PASSAGES`: at that passage of the point it kills itself;
see `tests.faults.stateworker`.
"""

from __future__ import annotations

import asyncio
import sys

from mqinfer import App, Worker
from mqinfer.cli.child import bind_to_supervisor
from mqinfer.settings import Settings
from stages.plants.health import watch
from tests.faults.stateworker import Fuse, install

# The example's own handler; who takes over waits less than the half minute of a field.
app = App("plants", partitions=2)
app.stage(ack_wait=2.0)(watch)


def main() -> None:
    bind_to_supervisor()
    point, passages = sys.argv[1:]
    install(Fuse(point, int(passages)))
    asyncio.run(Worker(app, stages=["watch"], settings=Settings.load()).run())


if __name__ == "__main__":
    main()
