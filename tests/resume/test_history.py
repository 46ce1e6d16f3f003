"""The history of a run that broke off ten times is that of one that never did: its log, its curves, its state."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import surestep
from surestep.callbacks.trackers.jsonl import LOG_NAME, read_log
from tests.parity.compare import CLOCK
from tests.parity.harness import Seen, run
from tests.parity.models import Net, Points

STEPS = 14
ARGUMENTS: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "max_steps": STEPS,
    "logging_steps": 2,
    "save_strategy": "steps",
    "save_steps": 3,
    "eval_strategy": "steps",
    "eval_steps": 4,
    "save_total_limit": 2,
    "report_to": "tensorboard",
}
# Where it breaks off: an event, and the step at which it comes.
BREAKS = [
    ("on_save", 3),
    ("on_step_begin", 3),
    ("on_log", 4),
    ("on_step_end", 5),
    ("on_evaluate", 4),
    ("on_log", 8),
    ("on_save", 9),
    ("on_step_begin", 11),
    ("on_save", 14),
    ("on_train_end", 14),
]


class BreaksOff(surestep.TrainerCallback):
    """Breaks a run off in the middle of an event, after the callbacks before it."""

    def __init__(self, event: str, step: int) -> None:
        setattr(self, event, lambda args, state, control, **_: self._break(state.global_step == step))

    def _break(self, now: bool) -> None:
        if now:
            raise KeyboardInterrupt


def train(folder: Path, callbacks: list[Any]) -> Seen:
    return run(
        surestep,
        ARGUMENTS,
        model=Net,
        train=lambda: Points(30),
        evaluate=lambda: Points(9, seed=1),
        folder=str(folder),
        callbacks=lambda side: callbacks,
        drive=lambda trainer: trainer.train(resume_from_checkpoint="auto"),
    )


def timeless(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in entry.items() if name != "time" and not name.endswith(CLOCK)}
        for entry in entries
    ]


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the points of the run of TensorBoard's that was written last, as its own reader puts its files together.

    A training that starts anew, because it broke off before its first checkpoint, begins another run.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    latest = max(folder.rglob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime)
    reader = EventAccumulator(str(latest.parent), size_guidance={"scalars": 0})
    reader.Reload()
    return {
        name: [(point.step, point.value) for point in reader.Scalars(name)]
        for name in reader.Tags()["scalars"]
        if not name.endswith(("runtime", "per_second"))
    }


@pytest.fixture(autouse=True)
def _sorted_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the names of TensorBoard's files sort as they were made, also where one process makes many in a second."""
    writer = pytest.importorskip("tensorboard.summary.writer.event_file_writer")
    count = itertools.count(100)
    monkeypatch.setattr(writer, "_global_uid", SimpleNamespace(get=lambda: next(count)))


def test_ten_breaks_leave_no_trace(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", [])
    for event, step in BREAKS:
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "pieces", [BreaksOff(event, step)])
    last = train(tmp_path / "pieces", [])

    log = read_log(tmp_path / "pieces" / LOG_NAME)
    assert timeless(log) == timeless(read_log(tmp_path / "whole" / LOG_NAME))
    assert [entry["event"] for entry in log].count("save") == 5
    assert timeless(last.logs) == timeless(whole.logs)
    assert curves(tmp_path / "pieces") == curves(tmp_path / "whole")
    undone = read_log(tmp_path / "pieces" / "train_log.undone.jsonl")
    assert [entry["event"] for entry in undone].count("resume") >= 7
    assert all(entry["lines"] >= 0 for entry in undone if entry["event"] == "resume")


def test_what_was_taken_out_of_the_log_is_counted(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, [BreaksOff("on_step_end", 9)])
    train(tmp_path, [])
    undone = read_log(tmp_path / "train_log.undone.jsonl")

    assert (undone[0]["event"], undone[0]["step"], undone[0]["lines"]) == ("resume", 6, 2)
    assert [(entry["event"], entry["step"]) for entry in undone[1:]] == [("log", 8), ("evaluate", 8)]
