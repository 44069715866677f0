"""MLflow: a SQLite file, shown by `mlflow ui --backend-store-uri sqlite:///OUT/mlflow.db`.

All runs of a comparison share one, in the folder of the comparison. MLFLOW_TRACKING_URI names another store, or a server.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import time
from typing import Any

from attent_kit.tracker import TrackedRun, Tracker

EXPERIMENT = "attent-kit"
VALUES_AT_ONCE = 100
"""Parameters that MLflow takes in one request."""


class MLflow(Tracker):
    """MLflow in a local SQLite file, or where MLFLOW_TRACKING_URI says."""

    package = "mlflow"
    install = "attent-kit[mlflow]"

    def start(self, run: TrackedRun) -> str:
        # Read when the package is imported: stops usage reports to its makers, and log lines about its tables.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param
        from mlflow.exceptions import MlflowException

        self.metric = Metric
        store = run.store.resolve()
        local = f"sqlite:///{store / 'mlflow.db'}"
        self.client = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", local))
        self.last = run.step
        if run.id is not None:
            try:
                self.client.update_run(run.id, status="RUNNING")
                self.id = run.id
                return self.id
            except MlflowException:
                pass  # The store was deleted or is another one, where this is a new run.
        self.id = self.client.create_run(self._experiment(store), run_name=run.name).info.run_id
        parameters = [Param(name, str(value)) for name, value in _flat(run.config)]
        for first in range(0, len(parameters), VALUES_AT_ONCE):
            self.client.log_batch(self.id, params=parameters[first : first + VALUES_AT_ONCE])
        return self.id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.last, now = step, int(time() * 1000)
        self.client.log_batch(self.id, metrics=[self.metric(name, value, now, step) for name, value in values.items()])

    def end(self, scores: Mapping[str, float] | None, artefacts: Sequence[Path]) -> None:
        if scores:
            self.log(self.last, scores)
        for path in artefacts:
            self.client.log_artifact(self.id, str(path))
        self.client.set_terminated(self.id, "KILLED" if scores is None else "FINISHED")

    def _experiment(self, store: Path) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        # Otherwise files would go to wherever the command was typed.
        where = None if "MLFLOW_TRACKING_URI" in os.environ else (store / "mlflow-files").as_uri()
        return str(self.client.create_experiment(EXPERIMENT, artifact_location=where))


def _flat(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values, as --set takes them."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value
