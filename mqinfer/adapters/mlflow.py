"""MLflow: records of experiments, where MLFLOW_TRACKING_URI is set; the extra `mlflow`.

Not even imported where it is not. A tracker that is down or slow holds up nobody: what takes longer
than a few seconds is given up, and the caller is told in words.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mqinfer.replay.tracked import Record

URI: Final = "MLFLOW_TRACKING_URI"
EXPERIMENT: Final = "MLFLOW_EXPERIMENT_NAME"
SECONDS: Final = 10.0
_KEY: Final = "mqinfer.key"
_USER: Final = re.compile(r"//[^/@\s]+@")  # whose password is nobody's business
# What MLflow asks of its server, unless somebody says otherwise: it would wait for minutes.
_USUAL: Final = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # nothing leaves for anybody else
    "GIT_PYTHON_REFRESH": "quiet",
}


class Tracker:
    """Keeps records in MLflow.

    Args:
        uri: of the tracking server, or a folder or database.
        experiment: name of the experiment, instead of the one that a record names.
        seconds: after which a record is given up.
    """

    def __init__(self, uri: str, experiment: str = "", seconds: float = SECONDS):
        self._uri = uri
        self._experiment = experiment
        self._seconds = seconds

    def keep(self, record: Record) -> str:
        """Keep a record; what came of it, in words. Never raises, and never waits for long."""
        said: list[str] = []
        for name, value in _USUAL.items():
            os.environ.setdefault(name, value)
        try:
            import mlflow  # noqa: F401 - takes seconds, and waits for nobody
        except ImportError:
            return f"{URI} is set, and mlflow is not installed: pip install 'mqinfer[mlflow]'"

        def work() -> None:
            try:
                said.append(self._keep(record))
            except ModuleNotFoundError as error:
                said.append(  # a store of its own, which the client alone does not bring
                    f"MLflow needs {error.name} for {_shown(self._uri)}: pip install mlflow"
                )
            except Exception as error:  # noqa: BLE001 - whatever it is, what was asked for is done
                first = next(iter(str(error).splitlines()), type(error).__name__)
                why = _USER.sub("//", first[:300])
                said.append(f"MLflow at {_shown(self._uri)} has not taken it: {why}")

        # No pool: Python would wait for its threads at the end.
        thread = threading.Thread(target=work, name="mqinfer-mlflow", daemon=True)
        thread.start()
        thread.join(self._seconds)
        if said:
            return said[0]
        return f"MLflow at {_shown(self._uri)} has not answered in {self._seconds:g} s"

    def _keep(self, record: Record) -> str:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        client: Any = MlflowClient(tracking_uri=self._uri)
        name = self._experiment or record.experiment
        found = client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else client.create_experiment(name)
        runs = []
        if record.key:
            where = f"tags.`{_KEY}` = '{record.key}'"
            runs = client.search_runs([experiment], where, max_results=1)
        if runs:
            run, params = runs[0].info.run_id, []
        else:
            tags = {_KEY: record.key, "mlflow.source.name": "mqinfer"}
            made = client.create_run(experiment, tags=tags, run_name=record.name)
            run = made.info.run_id
            params = [Param(key, value) for key, value in record.parameters.items()]
        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, 0) for key, value in record.metrics.items()]
        for first in range(0, max(len(metrics), 1), 900):  # MLflow takes 1,000 at once
            client.log_batch(run, metrics[first : first + 900], params if not first else [])
        for file, text in record.files.items():
            client.log_text(run, text, file)
        client.set_terminated(run)
        return f"logged to MLflow: experiment {name}, run {record.name}"


def open_tracker(environ: Mapping[str, str] | None = None) -> Tracker | None:
    """The tracker that the environment names; None where it names none."""
    environ = os.environ if environ is None else environ
    uri = environ.get(URI, "").strip()
    return Tracker(uri, environ.get(EXPERIMENT, "").strip()) if uri else None


def _shown(uri: str) -> str:
    from mqinfer.masking import mask_url

    return mask_url(uri)
