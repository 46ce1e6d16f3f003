"""MLflow, and DagsHub, which is an MLflow server with a store of files."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from surestep.callbacks.trackers.describe import model_config
from surestep.callbacks.trackers.entries import Entry, number
from surestep.callbacks.trackers.record import Known, Record, Values
from surestep.callbacks.trackers.reporter import is_true
from surestep.callbacks.trackers.tracker import Tracker
from surestep.errors import ArgumentError
from surestep.logs import get_logger, warn_once
from surestep.optional import require
from surestep.training.state import TrainerState

_logger = get_logger(__name__)


class MLflowCallback(Tracker):
    """Reports to MLflow: the log under its own names, arguments and model configuration as parameters.

    A run that the script has opened is used, unless `MLFLOW_NESTED_RUN` asks for one inside it; else one is opened in
    `MLFLOW_EXPERIMENT_NAME`, named `args.run_name`, and ended with the training. The store is `MLFLOW_TRACKING_URI`,
    by default a file in the working folder. `MLFLOW_RUN_ID` names a run to go on in, `MLFLOW_TAGS` is JSON,
    `MLFLOW_FLATTEN_PARAMS` and `MLFLOW_MAX_LOG_PARAMS` shape the parameters, and `HF_MLFLOW_LOG_ARTIFACTS` sends the
    files of checkpoints. A thread sends: training does not wait for a server.
    """

    name = "mlflow"
    package = "mlflow"
    quiet = (("MLFLOW_DISABLE_TELEMETRY", "true"),)
    in_background = True
    hint = "MLFLOW_TRACKING_URI names the store: a server, or a local one such as sqlite:///mlflow.db."

    def __init__(self, *, strict: bool = False) -> None:
        if is_true("DISABLE_MLFLOW_INTEGRATION"):
            raise ArgumentError(
                "report_to='mlflow', and DISABLE_MLFLOW_INTEGRATION is set. Unset it, or leave out mlflow."
            )
        super().__init__(strict=strict)
        self._ml_flow = self._library
        self._auto_end_run = False
        self._log_artifacts = is_true("HF_MLFLOW_LOG_ARTIFACTS")

    def open_run(self, args: Any, state: TrainerState, model: Any) -> None:
        """Start or continue a run, or use the active one; log parameters and tags."""
        mlflow, nested, named = self._ml_flow, is_true("MLFLOW_NESTED_RUN"), os.environ.get("MLFLOW_RUN_ID")
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri and not mlflow.is_tracking_uri_set():
            mlflow.set_tracking_uri(uri)
        if mlflow.active_run() is None or nested or named:
            experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME")
            if experiment:
                mlflow.set_experiment(experiment)
            trial = state.trial_name if state.is_hyper_param_search else None
            mlflow.start_run(run_id=named or self.run_id, run_name=trial or args.run_name, nested=nested)
            self._auto_end_run = True
        self.run_id = str(mlflow.active_run().info.run_id)
        self._log_parameters({**model_config(model), **args.to_dict()})
        tags = os.environ.get("MLFLOW_TAGS")
        if tags:
            mlflow.set_tags(json.loads(tags))

    def _log_parameters(self, values: dict[str, Any]) -> None:
        """Log what the run does not have yet: MLflow takes a parameter once, and no long ones."""
        limits = self._ml_flow.utils.validation
        if is_true("MLFLOW_FLATTEN_PARAMS"):
            values = _flat(values)
        long = [name for name, value in values.items() if len(str(value)) > limits.MAX_PARAM_VAL_LENGTH]
        texts = {name: str(value) for name, value in values.items() if name not in long}
        there = self._ml_flow.MlflowClient().get_run(self.run_id).data.params
        changed = [name for name, text in texts.items() if name in there and there[name] != text]
        for names, why in ((long, "too long; try MLFLOW_FLATTEN_PARAMS=1"), (changed, "it keeps the first value")):
            if names:
                _logger.warning("mlflow: parameters left out: %s (%s).", ", ".join(names), why)
        most = os.environ.get("MLFLOW_MAX_LOG_PARAMS", "")
        new = [item for item in texts.items() if item[0] not in there][: int(most) if most.isdigit() else None]
        size = limits.MAX_PARAMS_TAGS_PER_BATCH
        for start in range(0, len(new), size):
            self._ml_flow.log_params(dict(new[start : start + size]), run_id=self.run_id)

    def known(self, record: Record) -> Known:
        """Return what the store has of the run."""
        client = self._ml_flow.MlflowClient()
        names = client.get_run(record.run).data.metrics
        points = [(point.step, name) for name in names for point in client.get_metric_history(record.run, name)]
        return Values(points, _names)

    def send(self, entry: Entry) -> None:
        """Log the numbers of an entry."""
        left_out = [name for name, value in entry.values.items() if number(value) is None]
        if left_out:
            warn_once(_logger, f"MLflow takes numbers, which {', '.join(left_out)} are not: left out.")
        self._ml_flow.log_metrics(_metrics(entry), step=entry.step, run_id=self.run_id, synchronous=True)

    def end_run(self, *, failed: bool) -> None:
        """End a run that was opened here."""
        if self._auto_end_run:
            self._auto_end_run = False
            status = "FAILED" if failed else "FINISHED"
            active = self._ml_flow.active_run()
            if active is not None and active.info.run_id == self.run_id:
                self._ml_flow.end_run(status)
            else:
                self._ml_flow.MlflowClient().set_terminated(self.run_id, status)

    def send_checkpoint(self, folder: Path, args: Any, state: TrainerState) -> None:
        """Log the files of a checkpoint under its name."""
        if self._log_artifacts:
            self._ml_flow.log_artifacts(str(folder), artifact_path=folder.name, run_id=self.run_id)


class DagsHubCallback(MLflowCallback):
    """Reports to DagsHub, whose MLflow server `MLFLOW_TRACKING_URI` names, as `dagshub.init()` sets it.

    `HF_DAGSHUB_LOG_ARTIFACTS` uploads the output folder at the end, to branch `BRANCH` ("main").
    """

    name = "dagshub"
    hint = "`dagshub.init()` sets MLFLOW_TRACKING_URI; `dagshub login` logs in."

    def __init__(self, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        self.Repo = require("dagshub.upload", f"{type(self).__name__} (report_to='dagshub')").Repo
        self.log_artifacts = is_true("HF_DAGSHUB_LOG_ARTIFACTS")
        self.remote = os.environ.get("MLFLOW_TRACKING_URI")
        owner = re.fullmatch(r"https?://[^/]+/([^/]+)/([^/]+?)(\.mlflow)?/?", self.remote or "")
        if owner is None:
            raise ArgumentError(
                f"MLFLOW_TRACKING_URI is {self.remote!r}, which names no repository of DagsHub. Call dagshub.init() "
                "before the training, or write https://dagshub.com/<owner>/<repository>.mlflow."
            )
        self._owner, self._repository = owner[1], owner[2]

    def send_model(self, args: Any, state: TrainerState, model: Any, processing_class: Any) -> None:
        """Upload the output folder."""
        if self.log_artifacts:
            branch = os.environ.get("BRANCH") or "main"
            repository = self.Repo(owner=self._owner, name=self._repository, branch=branch)
            repository.directory("artifacts").add_dir(args.output_dir)


def _metrics(entry: Entry) -> dict[str, float]:
    """Return the numbers of an entry, with what MLflow takes in a name."""
    numbers = {given: number(entry.values[name]) for name, given in _names(entry).items()}
    return {name: value for name, value in numbers.items() if value is not None}


def _names(entry: Entry) -> dict[str, str]:
    """Return under which names MLflow takes the numbers of an entry."""
    numbers = [name for name, value in entry.values.items() if number(value) is not None]
    return {name: re.sub(r"[^0-9A-Za-z_\-. :/]", "_", name) for name in numbers}


def _flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Return nested values under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{above}{name}.")
        else:
            flat[f"{above}{name}"] = value
    return flat
