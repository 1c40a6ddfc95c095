"""`mqinfer boards`: a board for Grafana, or rules for Prometheus, of an app."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mqinfer.cli import options
from mqinfer.cli.load import load_app


def boards(
    app: options.AppName,
    *,
    rules: Annotated[
        bool, typer.Option("--rules", help="The alert rules for Prometheus, not the board.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Instead of stdout.")
    ] = None,
) -> None:
    r"""Print a board for Grafana, or alert rules for Prometheus, of an app. Asks no server.

    JSON, which a file of rules may be as well as YAML. Run it again when stages change. Those of
    `mqinfer deploy render` know groups of workers, targets and thresholds as well.

    \b
      mqinfer boards plants:app -o grafana/dashboards/plants.json
      mqinfer boards plants:app --rules -o prometheus/plants.yml
    """
    from mqinfer.operate import alerts
    from mqinfer.operate import boards as made

    loaded = load_app(app)
    text = json.dumps(alerts.rules(loaded) if rules else made.board(loaded), indent=2)
    if output is None:
        print(text)
    else:
        output.write_text(text + "\n", encoding="utf-8")
