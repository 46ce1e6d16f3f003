"""DVCLive."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from surestep.callbacks.trackers.describe import save_model_files
from surestep.callbacks.trackers.entries import Entry, number
from surestep.callbacks.trackers.record import Known, Record, Values
from surestep.callbacks.trackers.reporter import is_true
from surestep.callbacks.trackers.tables import drop_unfinished
from surestep.callbacks.trackers.tracker import Tracker
from surestep.errors import ArgumentError
from surestep.logs import get_logger, warn_once
from surestep.optional import require
from surestep.training.state import TrainerState

_logger = get_logger(__name__)


class DVCLiveCallback(Tracker):
    """Reports to DVCLive: the log over steps, the arguments as parameters.

    Args:
        live: a `dvclive.Live` of your own to use; else one is made with the further keywords.
        log_model: True logs the model at the end, "all" the output folder at each checkpoint; None takes
            `HF_DVCLIVE_LOG_MODEL`.
        strict: whether a failure stops the run.
        **kwargs: for `dvclive.Live`.
    """

    name = "dvclive"
    package = "dvclive"
    quiet = (("DVC_NO_ANALYTICS", "true"),)
    hint = "`DVCLiveCallback(dir=...)` names the folder."

    def __init__(
        self,
        live: Any = None,
        log_model: Literal["all"] | bool | None = None,
        *,
        strict: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(strict=strict)
        if live is not None and not isinstance(live, self._library.Live):
            raise ArgumentError(f"live is a {type(live).__name__}. Give a dvclive.Live, or None to have one made.")
        self.live: Any = live
        self._is_users = live is not None
        self._settings = kwargs
        asked = os.environ.get("HF_DVCLIVE_LOG_MODEL", "")
        from_environment = "all" if asked.lower() == "all" else is_true("HF_DVCLIVE_LOG_MODEL")
        self._log_model = from_environment if log_model is None else log_model

    def open_run(self, args: Any, state: TrainerState, model: Any) -> None:
        """Make a `Live`, which empties its folder, or go on in the folder of the run that is resumed."""
        if not self._is_users:
            settings = dict(self._settings)
            if self.run_id is not None:
                settings |= {"dir": self.run_id, "resume": True}
                _mend(Path(self.run_id))
            self.live = self._library.Live(**settings)
        self.run_id = str(self.live.dir)
        self.live.log_params(args.to_dict())

    def known(self, record: Record) -> Known:
        """Return what the tables of the run have."""
        tables = Path(self.live.plots_dir) / "metrics"
        return Values(_points(tables), lambda entry: {name: _name(name) for name in _values(entry)})

    def send(self, entry: Entry) -> None:
        """Log an entry at its step."""
        values = _values(entry)
        left_out = entry.values.keys() - values.keys()
        if left_out:
            warn_once(_logger, f"DVCLive takes numbers and text, not {', '.join(sorted(left_out))}: left out.")
        self.live.step = entry.step
        for name, value in values.items():
            self.live.log_metric(_name(name), value)
        self.live.next_step()

    def end_run(self, *, failed: bool) -> None:
        """End the `Live`, which saves an experiment of DVC where there is a repository."""
        self.live.end()

    def send_checkpoint(self, folder: Path, args: Any, state: TrainerState) -> None:
        """Track the output folder."""
        if self._log_model == "all":
            self.live.log_artifact(args.output_dir)

    def send_model(self, args: Any, state: TrainerState, model: Any, processing_class: Any) -> None:
        """Write the model into the output folder, and track it."""
        if self._log_model is True:
            name = "best" if args.load_best_model_at_end else "last"
            folder = Path(args.output_dir) / name
            save_model_files(folder, args, model, processing_class)
            self.live.log_artifact(str(folder), name=name, type="model", copy=True)


def _values(entry: Entry) -> dict[str, Any]:
    """Return the numbers and texts of an entry."""
    values = {name: value if isinstance(value, str) else number(value) for name, value in entry.values.items()}
    return {name: value for name, value in values.items() if value is not None}


def _name(name: str) -> str:
    """Return the name by which DVCLive groups: train_x is train/x, eval_x is eval/x, others stay."""
    for group in ("train", "eval"):
        name = name.replace(f"{group}_", f"{group}/")
    return name


def _mend(folder: Path) -> None:
    """Make the files of a run such that the client can go on with them, if it was killed while it wrote them."""
    for file in (folder / "metrics.json", folder / "params.yaml"):
        if file.exists() and not _is_whole(file):
            _logger.warning("'%s' was not written to its end: it is made anew.", file)
            file.unlink()
    for table in (folder / "plots" / "metrics").rglob("*.tsv"):
        drop_unfinished(table)


def _is_whole(file: Path) -> bool:
    """Say whether the client can read a file of JSON or YAML, both of which end in a newline."""
    serialize = require("dvclive.serialize", "DVCLiveCallback")
    content = file.read_bytes()
    try:
        # The end first: half a YAML is often a YAML.
        return content.endswith(b"\n") and bool(
            json.loads(content) if file.suffix == ".json" else serialize.load_yaml(file)
        )
    except (ValueError, serialize.YAMLError):
        return False


def _points(tables: Path) -> Iterator[tuple[int, str]]:
    """Yield step and name of every value in the tables."""
    for table in tables.rglob("*.tsv"):
        name = table.relative_to(tables).with_suffix("").as_posix()
        with table.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                yield int(row["step"]), name
