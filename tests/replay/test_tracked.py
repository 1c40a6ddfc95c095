"""Comparisons in MLflow: a real local store; one that is away or slow holds up nobody."""

from __future__ import annotations

import datetime
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from mqinfer import App
from mqinfer.adapters.mlflow import Tracker, open_tracker
from mqinfer.replay.run import Run
from mqinfer.replay.tracked import Record, record

NUMBERS = {"old_mean": 1.0, "new_mean": 1.5, "shift": 0.5, "mean_change": 0.5, "most_change": 2.0}
TABLE = {
    "table": "graded",
    "matched": 40,
    "only_new": 1,
    "only_old": 0,
    "agree": 30,
    "agreement": 0.75,
    "columns": {
        "grade": {"type": "String", "agreement": 0.8, "changes": []},
        "size µm": {"type": "Float64", "agreement": 0.9, "numbers": NUMBERS},
        "none": {"type": "Float64", "agreement": None, "numbers": {"shift": float("nan")}},
    },
}


def made(agreement: float = 0.75) -> Record:
    now = datetime.datetime.now(datetime.UTC)
    run = Run(
        name="may", stage="grade", start=7, end=50, total=44, created=now, models={"grader": "2"}
    )
    facts = {"run": "may", "with": "live", "tables": [{**TABLE, "agreement": agreement}]}
    return record(App("plants"), run, facts, "<p>page</p>")


def test_a_comparison_is_parameters_metrics_and_the_report() -> None:
    found = made()
    assert found.parameters["model.grader"] == "2"
    assert found.parameters["with"] == "live"
    assert found.metrics["graded.agreement"] == 0.75
    assert found.metrics["graded.grade.agreement"] == 0.8
    assert found.metrics["graded.size _m.shift"] == 0.5  # a name that MLflow takes
    assert not [name for name in found.metrics if name.startswith("graded.none")]
    assert json.loads(found.files["comparison.json"])["run"] == "may"


@pytest.mark.filterwarnings("ignore")  # of its own store
def test_it_is_one_run_of_mlflow_with_a_further_value_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow: Any = pytest.importorskip("mlflow")
    pytest.importorskip("alembic")  # of a store in a database
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.chdir(tmp_path)  # where it keeps artifacts
    tracker = Tracker(uri, seconds=600.0)
    for agreement in (0.5, 0.75):
        said = tracker.keep(made(agreement))
        assert said == "logged to MLflow: experiment mqinfer-plants, run may beside live"
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("mqinfer-plants")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["model.grader"] == "2"
    history = client.get_metric_history(run.info.run_id, "graded.agreement")
    assert sorted(one.value for one in history) == [0.5, 0.75]
    names = {one.path for one in client.list_artifacts(run.info.run_id)}
    assert names == {"comparison.json", "comparison.html"}


def test_what_is_away_or_slow_is_told_and_holds_up_nobody() -> None:
    pytest.importorskip("mlflow")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        said = Tracker(f"http://ann:secret@127.0.0.1:{port}", seconds=600.0).keep(made())
        assert "has not taken it: " in said
        assert "secret" not in said
        listener.listen()  # and never answers
        assert "has not answered in 0.1 s" in Tracker(f"http://127.0.0.1:{port}", "", 0.1).keep(
            made()
        )


def test_off_without_a_uri() -> None:
    assert open_tracker({}) is None
    assert open_tracker({"MLFLOW_TRACKING_URI": " "}) is None
    assert open_tracker({"MLFLOW_TRACKING_URI": "file:x"}) is not None
