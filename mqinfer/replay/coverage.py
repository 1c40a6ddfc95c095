"""Coverage: which messages a run has answered, also where it had nothing to say.

The replayed stage writes a `RunInput` for every message that it answered, in the same step as its
outputs, so that promoting hides the live rows of an input which now gives none. A shadow also
writes one, under the same id, for a message that it passes over: each of its share has exactly one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mqinfer.message import Row
from mqinfer.replay import runs

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.replay.run import Run


class RunInput(
    Row, frozen=True, table="mqinfer_run_inputs", order_by=("app", "run"), subject="mqinfer-input"
):
    """One message that a run has answered, whether or not anything came of it, or passed over.

    Attributes:
        app: whose run.
        run: its name.
        stage: that was replayed.
        input: identity of the message.
        sequence: of the message as the run read it; one that was sent back has a new one.
        outputs: how many it led to.
        skipped: why a shadow passed it over; "": it was answered.
    """

    app: str
    run: str
    stage: str
    input: str
    sequence: int
    outputs: int
    skipped: str = ""


def row_types(app: App, run: Run) -> dict[str, type[Row]]:
    """The tables that a run writes to."""
    written = {kind for task in runs.taken(app, run) for kind in task.writes}
    return {table: row for table, row in app.rows.items() if row in written}
