"""Comet."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from surestep.callbacks.trackers.describe import adapter_config, model_config
from surestep.callbacks.trackers.entries import Entry, rewrite_logs
from surestep.callbacks.trackers.record import Known, Record, Sent, Stored
from surestep.callbacks.trackers.reporter import is_true
from surestep.callbacks.trackers.tracker import Tracker
from surestep.errors import ArgumentError, MissingPackageError
from surestep.optional import version
from surestep.training.state import TrainerState

_NEEDED = (3, 43, 2)
_MODES = ("get", "get_or_create", "create")


class CometCallback(Tracker):
    """Reports to Comet: the log over steps, arguments and model configuration as parameters, the model as graph.

    `COMET_MODE` is "get_or_create", "create" or "get"; with `COMET_EXPERIMENT_KEY` it names an experiment to go on in.
    `COMET_START_ONLINE=false` writes to `COMET_OFFLINE_DIRECTORY` instead, for `comet upload`. `COMET_LOG_ASSETS`
    sends the output folder at the end. The client reads the other `COMET_*`. The experiment is left open for what the
    script adds.
    """

    name = "comet_ml"
    package = "comet_ml"
    quiet = (("COMET_ERROR_TRACKING_ENABLE", "false"),)
    stays_open = True
    takes_predictions = True
    hint = "Set COMET_API_KEY, or COMET_START_ONLINE=false to write to disk."

    def __init__(self, *, strict: bool = False) -> None:
        if os.environ.get("COMET_START_ONLINE", "").lower() == "false":
            # Offline, the client would still look up the server to learn this machine's address.
            os.environ.setdefault("COMET_AUTO_LOG_ENV_HOST", "false")
        super().__init__(strict=strict)
        found = version("comet-ml")
        if found < _NEEDED:
            shown = ".".join(map(str, found))
            raise MissingPackageError(
                f"report_to='comet_ml' needs comet-ml 3.43.2 or newer, and {shown} is installed. Install it with: "
                "pip install 'comet-ml>=3.43.2'"
            )
        self._mode = os.environ.get("COMET_MODE", "").lower() or None
        if self._mode not in {None, *_MODES}:
            raise ArgumentError(f"COMET_MODE is {self._mode!r}. Write one of {', '.join(_MODES)}.")
        self._log_assets = is_true("COMET_LOG_ASSETS")
        self._experiment: Any = None
        self._was_open = False

    def open_run(self, args: Any, state: TrainerState, model: Any) -> None:
        """Start an experiment, or go on in one; log the parameters."""
        comet, searching = self._library, state.is_hyper_param_search
        continued = self.run_id if "COMET_EXPERIMENT_KEY" not in os.environ else None
        self._was_open = self._experiment is not None and self._experiment.get_key() == continued
        if self._was_open:
            return
        self._experiment = comet.start(
            mode="create" if searching else self._mode if continued is None else "get",
            experiment_key=None if searching else continued,
            experiment_config=comet.ExperimentConfig(name=args.run_name),
        )
        self.run_id = self._experiment.get_key()
        if model is not None:
            self._experiment.set_model_graph(str(model))
        about = {"config": model_config(model), "peft_config": adapter_config(model)}
        parameters = {"args": args.to_dict(), **{name: value for name, value in about.items() if value}}
        self._experiment.log_parameters(parameters, nested_support=True)
        if searching:
            self._experiment.log_optimization(optimization_id=state.trial_name, parameters=state.trial_params)

    def known(self, record: Record) -> Known:
        """Return what the experiment has: offline by the archives of its earlier parts, online what was sent."""
        folder = getattr(self._experiment, "offline_directory", None)
        if self._was_open or folder is None:
            return Sent(record)
        archives = Path(folder).glob(f"{record.run}*.zip")
        points = (point for archive in archives for point in _points(archive))
        return Stored(points, record, lambda entry: rewrite_logs(entry.values))

    def send(self, entry: Entry) -> None:
        """Log an entry."""
        self._experiment.log_metrics(rewrite_logs(entry.values), step=entry.step, epoch=entry.epoch)

    def end_run(self, *, failed: bool) -> None:
        """End the experiment."""
        self._experiment.end()

    def send_model(self, args: Any, state: TrainerState, model: Any, processing_class: Any) -> None:
        """Log the output folder."""
        if self._log_assets:
            self._experiment.log_asset_folder(
                args.output_dir, recursive=True, log_file_name=True, step=state.global_step
            )


def _points(archive: Path) -> Iterator[tuple[int, str]]:
    """Yield step and name of the values that the archive of an offline experiment holds."""
    with zipfile.ZipFile(archive) as opened:
        # The client makes the archive when an experiment begins and fills it when it ends.
        if "messages.json" not in opened.namelist():
            return
        for line in opened.read("messages.json").splitlines():
            metric = json.loads(line)["payload"].get("metric")
            if metric is not None and metric.get("step") is not None:
                yield int(metric["step"]), metric["metricName"]
