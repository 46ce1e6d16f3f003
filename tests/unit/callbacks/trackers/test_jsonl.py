import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from surestep.callbacks.trackers.jsonl import JsonlCallback, read_log
from surestep.training.state import TrainerControl, TrainerState

CONTROL = TrainerControl()


@pytest.fixture
def args(tmp_path):
    return SimpleNamespace(output_dir=str(tmp_path / "deep" / "out"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "out" / "train_log.jsonl"


def refuse(constant: str):
    raise AssertionError(f"{constant} is no JSON")


def strict(line: str) -> dict:
    return json.loads(line, parse_constant=refuse)


def run(args, steps, *, start: int = 0, end: bool = True) -> JsonlCallback:
    """Train from `start` over `steps`: a log at every step, a save at every second."""
    callback, state = JsonlCallback(), TrainerState(global_step=start, max_steps=100, num_train_epochs=3)
    callback.on_train_begin(args, state, CONTROL)
    for step in steps:
        state.global_step = step
        callback.on_log(args, state, CONTROL, logs={"loss": 1 / step, "start": start})
        if step % 2 == 0:
            callback.on_save(args, state, CONTROL)
    if end:
        callback.on_train_end(args, state, CONTROL)
    return callback


class Checkpoints:
    """Folders of checkpoints: `save` does what a save does with the callback, `resume` what a resume does."""

    def __init__(self, args, folder):
        self.args, self.folder = args, folder

    def save(self, callback: JsonlCallback, step: int, *, told: bool = True) -> None:
        place = self.folder / f"checkpoint-{step}"
        place.mkdir(parents=True, exist_ok=True)
        callback.save_to(place)
        if told:
            callback.on_save(self.args, TrainerState(global_step=step), CONTROL)

    def resume(self, step: int) -> JsonlCallback:
        callback = JsonlCallback()
        callback.load_from(self.folder / f"checkpoint-{step}")
        callback.on_train_begin(self.args, TrainerState(global_step=step), CONTROL)
        return callback


@pytest.fixture
def checkpoints(args, tmp_path):
    return Checkpoints(args, tmp_path / "deep" / "out")


def log(callback: JsonlCallback, args, step: int) -> None:
    callback.on_log(args, TrainerState(global_step=step), CONTROL, logs={"loss": 1 / step})


def outline(path) -> list[tuple[str, int]]:
    return [(entry["event"], entry["step"]) for entry in map(strict, path.read_text().splitlines())]


def test_a_run_is_recorded_event_by_event(args, path):
    callback = run(args, [1, 2], end=False)
    state = TrainerState(global_step=2, best_metric=0.5, best_global_step=2)
    callback.on_log(args, state, CONTROL, logs={"eval_loss": 0.5, "epoch": 1.0})
    callback.on_train_end(args, state, CONTROL)
    assert outline(path) == [("begin", 0), ("log", 1), ("log", 2), ("save", 2), ("evaluate", 2), ("end", 2)]
    entries = read_log(path)
    assert entries[0].items() >= {"max_steps": 100, "num_train_epochs": 3}.items()
    assert list(entries[1]) == ["event", "step", "time", "loss", "start"]
    assert entries[4].items() >= {"eval_loss": 0.5, "epoch": 1.0}.items()
    assert entries[5].items() >= {"best_metric": 0.5, "best_global_step": 2}.items()
    assert all(entry["time"] > 1.6e9 for entry in entries)


def test_each_line_is_on_disk_when_the_event_returns(args, path):
    callback, state = JsonlCallback(), TrainerState()
    callback.on_train_begin(args, state, CONTROL)
    for count in range(2, 5):
        callback.on_log(args, state, CONTROL, logs={"loss": 1.0})
        assert path.read_bytes().count(b"\n") == count


@pytest.mark.parametrize(
    ("value", "written", "read"),
    [
        (math.nan, "NaN", math.nan),
        (math.inf, "Infinity", math.inf),
        (-math.inf, "-Infinity", -math.inf),
        (np.float32("nan"), "NaN", math.nan),
        (np.float64(0.1), 0.1, 0.1),
        (np.int64(3), 3, 3),
        (np.bool_(True), True, True),
        (torch.tensor(2.5), 2.5, 2.5),
        (torch.tensor([1.0, -torch.inf]), [1.0, "-Infinity"], [1.0, "-Infinity"]),
        ({"a": [math.nan, 1], 2: (None,)}, {"a": ["NaN", 1], "2": [None]}, {"a": ["NaN", 1], "2": [None]}),
        ("line\nbreak \u2028 ä", "line\nbreak \u2028 ä", "line\nbreak \u2028 ä"),
        (1e-300, 1e-300, 1e-300),
        (torch.float32, "torch.float32", "torch.float32"),
    ],
)
def test_values_as_strict_json(args, path, value, written, read):
    callback = JsonlCallback()
    callback.on_train_begin(args, TrainerState(), CONTROL)
    callback.on_log(args, TrainerState(), CONTROL, logs={"value": value})
    assert strict(path.read_text(encoding="utf-8").split("\n")[1])["value"] == written
    found = read_log(path)[1]["value"]
    assert found == read or (math.isnan(found) and math.isnan(read))


def test_names_of_ours_are_not_overwritten(args, path):
    callback = JsonlCallback()
    callback.on_train_begin(args, TrainerState(), CONTROL)
    callback.on_log(args, TrainerState(global_step=4), CONTROL, logs={"step": 99, "time": "noon", "loss": 1.0})
    entry = read_log(path)[1]
    assert (entry["step"], entry["log_step"], entry["log_time"]) == (4, 99, "noon")


def test_a_resumed_run_goes_back_to_its_step_and_keeps_every_byte_before(args, path):
    run(args, [1, 2, 3, 4, 5], end=False)
    lines = path.read_bytes().splitlines(keepends=True)
    run(args, [3, 4], start=2)
    after = path.read_bytes().splitlines(keepends=True)
    assert after[:4] == lines[:4]
    assert outline(path)[4:] == [("log", 3), ("log", 4), ("save", 4), ("end", 4)]
    undone = path.with_name("train_log.undone.jsonl")
    assert set(path.parent.iterdir()) == {path, undone}
    assert undone.read_bytes().splitlines(keepends=True)[1:] == lines[4:]
    assert read_log(undone)[0].items() >= {"event": "resume", "step": 2, "lines": 4}.items()


@pytest.mark.parametrize("torn", [b'{"event": "log", "step": 1, "ti', b'{"event": "log", "step": 1}', b"\x00\x00\xff"])
def test_a_line_that_a_crash_cut_off_is_taken_out(args, path, torn):
    run(args, [1, 2], end=False)
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert len(read_log(path)) >= 4
    run(args, [], start=2, end=False)
    assert path.read_bytes() == whole
    assert path.with_name("train_log.undone.jsonl").read_bytes().endswith(b"\n" + torn + b"\n")


def test_a_line_that_nobody_can_read_is_kept(args, path):
    run(args, [1], end=False)
    kept = path.read_bytes() + b"scribble\n[1]\n\n"
    path.write_bytes(kept)
    run(args, [], start=5, end=False)
    assert path.read_bytes() == kept
    assert len(read_log(path)) == 2


def test_a_checkpoint_says_how_far_the_log_was(args, path, checkpoints):
    """What a run logs at the step of its last checkpoint, but after it, is logged again: so it must go."""
    callback = run(args, [1], end=False)
    log(callback, args, 2)
    checkpoints.save(callback, 2)
    before = path.read_bytes()
    callback.on_log(args, TrainerState(global_step=2), CONTROL, logs={"train_loss": 1.0})
    callback.on_train_end(args, TrainerState(global_step=2), CONTROL)
    checkpoints.resume(2)

    assert path.read_bytes() == before
    assert [entry["event"] for entry in read_log(path.with_name("train_log.undone.jsonl"))] == ["resume", "log", "end"]


def test_a_save_that_the_log_was_not_told_of_is_made_up_for(args, path, checkpoints):
    callback = run(args, [1], end=False)
    checkpoints.save(callback, 1, told=False)
    for _ in range(2):
        checkpoints.resume(1)
        assert outline(path) == [("begin", 0), ("log", 1), ("save", 1)]


def test_a_file_that_was_changed_is_gone_back_in_by_its_steps(args, path, checkpoints):
    callback = run(args, [1], end=False)
    checkpoints.save(callback, 1)
    log(callback, args, 2)
    path.write_bytes(path.read_bytes().replace(b"1.0", b"1.5"))
    checkpoints.resume(1)

    assert outline(path) == [("begin", 0), ("log", 1), ("save", 1)]


def test_going_back_in_the_middle_of_a_training(args, path, checkpoints):
    callback = run(args, [1], end=False)
    checkpoints.save(callback, 1)
    log(callback, args, 2)
    callback.load_from(checkpoints.folder / "checkpoint-1")
    log(callback, args, 2)
    callback.close()
    callback.load_from(checkpoints.folder / "checkpoint-1")

    assert outline(path) == [("begin", 0), ("log", 1), ("save", 1), ("log", 2)]


def test_the_log_is_on_the_disk_before_its_checkpoint_is(args, path, checkpoints, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", lambda handle: synced.append(str(Path(f"/proc/self/fd/{handle}").readlink())))
    checkpoints.save(run(args, [1], end=False), 1, told=False)

    assert synced == [str(path)]


def test_a_log_with_a_gap_does_not_say_how_far_it_is(args, path, checkpoints, monkeypatch):
    callback = run(args, [1], end=False)
    full = path.with_name("full")
    full.symlink_to("/dev/full")
    monkeypatch.setattr(callback._log, "path", full)
    log(callback, args, 2)
    monkeypatch.setattr(callback._log, "path", path)
    checkpoints.save(callback, 2)

    assert not (checkpoints.folder / "checkpoint-2" / "train_log.json").exists()


def test_a_resumed_run_in_another_folder_begins_a_file(args, path):
    run(args, [8], start=7)
    assert outline(path) == [("begin", 7), ("log", 8), ("save", 8), ("end", 8)]


def test_a_new_run_keeps_the_older_files(args, path):
    contents = []
    for _ in range(3):
        run(args, [1])
        contents.append(path.read_bytes())
    assert path.read_bytes() == contents[2]
    assert [path.with_name(f"train_log.{number}.jsonl").read_bytes() for number in (1, 2)] == contents[:2]
    assert len(list(path.parent.iterdir())) == 3


def test_a_new_run_keeps_what_was_taken_out_of_an_older_one(args, path):
    run(args, [1, 2])
    run(args, [2], start=1)
    undone = path.with_name("train_log.undone.jsonl").read_bytes()
    run(args, [1])

    assert path.with_name("train_log.1.undone.jsonl").read_bytes() == undone
    assert not path.with_name("train_log.undone.jsonl").exists()


def test_only_the_first_process_writes(args, path):
    callback, state = JsonlCallback(), TrainerState(is_world_process_zero=False)
    callback.on_train_begin(args, state, CONTROL)
    callback.on_log(args, state, CONTROL, logs={"loss": 1.0})
    callback.on_train_end(args, state, CONTROL)
    assert not path.parent.exists()


def test_nothing_is_written_before_a_training(args, path):
    JsonlCallback().on_log(args, TrainerState(), CONTROL, logs={"eval_loss": 1.0})
    assert not path.parent.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a device that is always full")
def test_a_full_disk_leaves_the_run_alone_and_the_later_lines_whole(args, path, caplog):
    callback = run(args, [1], end=False)
    full = path.with_name("full")
    full.symlink_to("/dev/full")
    callback._log.path = full
    callback.on_log(args, TrainerState(), CONTROL, logs={"loss": 1.0})
    callback.on_log(args, TrainerState(), CONTROL, logs={"loss": 1.0})
    assert caplog.text.count("will have gaps") == 1
    callback._log.path = path
    with path.open("a") as file:
        file.write('{"event": "lo')
    callback.on_log(args, TrainerState(global_step=9), CONTROL, logs={"loss": 1.0})
    callback.on_log(args, TrainerState(global_step=10), CONTROL, logs={"loss": 1.0})
    assert [entry["step"] for entry in read_log(path)] == [0, 1, 9, 10]
