"""`mqinfer settings`: every setting that there is."""

from __future__ import annotations

from mqinfer.cli import options
from mqinfer.cli.output import print_json, print_table
from mqinfer.settings import Settings


def settings(as_json: options.AsJson = False) -> None:
    r"""Show every setting: its variable, type, default and meaning.

    Flags of a command win over the environment.

    \b
      mqinfer settings
      MQINFER_NATS_URL=nats://prod:4222 mqinfer worker plants:app
    """
    rows = Settings.describe()
    if as_json:
        print_json([row._asdict() for row in rows])
    else:
        print_table(("variable", "type", "default", "meaning"), [tuple(row) for row in rows])
