"""The folder of a run: what was declared, what came out, and whether one run at a time works in it."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from surestep.checkpoint.layout import checkpoints_in, step_of
from surestep.checkpoint.lock import FolderLock
from surestep.config.fields import TOPICS, judges_of
from surestep.config.verdicts import HARMLESS, Situation
from surestep.errors import CheckpointError, JobError
from surestep.jobs.job import Job
from surestep.runtime.disk import make_folders, replace_text

_FORMAT = 1
# The lock of the whole run; that of its checkpoints is another.
_LOCK = ".lock"
# Lists of numbers, such as the rows of a confusion matrix, take one line each.
_NUMBERS = re.compile(r"\[\n[-+\d\s.,e]+\]")


@dataclass(frozen=True)
class RunFolder:
    """The files of one run in `path`."""

    path: Path

    @property
    def record_path(self) -> Path:
        """The declared job and the state of its data, written before training begins."""
        return self.path / "job.json"

    @property
    def results_path(self) -> Path:
        """What came out; it is written last, so a run with this file is complete."""
        return self.path / "results.json"

    @property
    def search_path(self) -> Path:
        """The folder of a search: its study, and a folder for each trial."""
        return self.path / "search"

    @property
    def model_path(self) -> Path:
        """The folder of the final model."""
        return self.path / "model"

    def record(self) -> dict[str, Any] | None:
        """Return what was recorded of the run that the folder holds, or None where it holds none."""
        if not self.record_path.is_file():
            return None
        return _read_json(self.record_path)

    def results(self) -> dict[str, Any] | None:
        """Return the results of a complete run, else None."""
        return _read_json(self.results_path) if self.results_path.is_file() else None

    def steps_saved(self) -> list[int]:
        """Return the steps of the checkpoints in the folder, in order; the trainer finds out whether they are sound."""
        return [step for path in checkpoints_in(self.path) if (step := step_of(path)) is not None]

    def standing(self) -> str:
        """Say what a run in the folder would do: begin, go on, or be shown because it is complete."""
        if self.results_path.is_file():
            return "holds a complete run"
        trials = len([*self.search_path.glob("run-*")])
        if trials:
            return f"would go on with its search, {trials:,} trials were begun"
        saved = self.steps_saved()
        return f"would go on from step {saved[-1]:,}" if saved else "would begin"

    def check_free(self) -> None:
        """Refuse a folder that holds files but no run of a job."""
        if self.record_path.exists() or not self.path.exists():
            return
        if not self.path.is_dir():
            raise JobError(f"output_dir '{self.path}' is a file: write the name of a folder.")
        found = [entry.name for entry in self.path.iterdir() if entry.name != _LOCK]
        if found:
            raise JobError(
                f"output_dir '{self.path}' holds files of something else than a job ('{sorted(found)[0]}' among them). "
                "Write another folder, or give --fresh to move this one aside."
            )

    def begin(self, job: Job, data: str | None) -> None:
        """Record the job and the fingerprint of its data."""
        record = {"format": _FORMAT, "surestep": version("surestep"), "job": _as_json(job), "data": data}
        write_json(self.record_path, record)

    def finish(self, results: Mapping[str, Any]) -> None:
        """Write the results; from now on the run is complete."""
        write_json(self.results_path, {"format": _FORMAT, **results})

    def reopen(self) -> None:
        """Turn the results of a complete run aside, so that it can go on with a changed job."""
        if self.results_path.exists():
            self.results_path.replace(self.results_path.with_suffix(".old.json"))

    def move_aside(self) -> Path | None:
        """Rename the folder to the first free `name.old-N` and return that, or None where there is no folder."""
        if not self.path.exists():
            return None
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.old-{number}")).exists():
            number += 1
        self.path.rename(aside)
        return aside

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of the folder; the lock ends with the process, however that ends."""
        lock = FolderLock(self.path, _LOCK)
        try:
            made = make_folders(self.path)
            lock.acquire()
        except CheckpointError as error:
            raise JobError(str(error)) from error
        except OSError as error:
            raise JobError(
                f"output_dir '{self.path}' cannot be written to ({error.strerror}: '{error.filename}'). Write another "
                "folder."
            ) from error
        try:
            yield
        finally:
            self._leave_nothing_empty(made)
            lock.release()

    def _leave_nothing_empty(self, made: list[Path]) -> None:
        """Remove the lock and the folders that were `made` for it, when a run was refused and left nothing in them."""
        if made and [entry.name for entry in self.path.iterdir()] == [_LOCK]:
            (self.path / _LOCK).unlink()
            for folder in reversed(made):
                folder.rmdir()


def differences(record: Mapping[str, Any], job: Job, data: str | None) -> list[str]:
    """Return what differs between the recorded run and `job`, a line each; what changes no result is left out."""
    before, today = record.get("job", {}), _as_json(job)
    then, now = _flat(before), _flat(today)
    situation = Situation(before.get("arguments", {}), today["arguments"])
    harmless = (name for name, judge in judges_of(TOPICS).items() if judge(situation) == HARMLESS)
    free = {f"arguments.{name}" for name in harmless} | {"name", "output_dir"}
    lines = [
        f"{key}: {_shown(then, key)} there, {_shown(now, key)} now"
        for key in sorted(then.keys() | now.keys())
        if key not in free and then.get(key) != now.get(key)
    ]
    if record.get("data") != data:
        lines.append("data: the files have changed since that run began")
    return lines


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    replace_text(path, _NUMBERS.sub(_one_line, json.dumps(content, indent=2, ensure_ascii=False)) + "\n")


def _as_json(job: Job) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(job.model_dump(), default=str))
    return content


def _one_line(numbers: re.Match[str]) -> str:
    return " ".join(numbers[0].split()).replace("[ ", "[").replace(" ]", "]")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        written = content["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}). Give --fresh to move the folder aside and start anew."
        ) from error
    if written != _FORMAT:
        raise CheckpointError(f"{path} has format {written}; this version of surestep reads {_FORMAT}. Give --fresh.")
    return content


def _flat(block: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in block.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return repr(flat[key]) if key in flat else "not given"
