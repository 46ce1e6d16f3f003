"""What checkpoints hold and how a run goes on otherwise than in the original, on purpose: both sides."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import surestep
from surestep.errors import CheckpointError
from tests.parity.differences import shows
from tests.parity.harness import Seen, run
from tests.parity.models import Net, Points

SIDES = [transformers, surestep]
BASE = {
    "per_device_train_batch_size": 4,
    "max_steps": 8,
    "logging_steps": 2,
    "learning_rate": 1e-2,
    "lr_scheduler_type": "constant",
}
SAVED = {**BASE, "save_strategy": "steps", "save_steps": 2}
OBJECTS: dict[str, Any] = {"train": lambda: Points(24), "model": lambda: Net(0.2)}


def begin(side: Any, folder: Path, arguments: dict[str, Any] | None = None, **objects: Any) -> Seen:
    return run(side, arguments or SAVED, folder=str(folder), **OBJECTS, **objects)


def go_on(side: Any, folder: Path, checkpoint: Any, arguments: dict[str, Any] | None = None, **objects: Any) -> Seen:
    """Resume in a new trainer; a name is that of a checkpoint in the folder."""
    named = str(folder / checkpoint) if isinstance(checkpoint, str) else checkpoint
    drive = {"drive": lambda trainer: trainer.train(resume_from_checkpoint=named)}
    return run(side, arguments or SAVED, folder=str(folder), **{**OBJECTS, **drive, **objects})


def loss_steps(seen: Seen) -> list[int]:
    return [entry["step"] for entry in seen.logs if "loss" in entry]


@shows("C1")
def test_the_original_loads_our_weights_but_does_not_resume_our_runs(tmp_path: Path) -> None:
    names: dict[str, set[str]] = {}
    for side in SIDES:
        begin(side, tmp_path / side.__name__)
        names[side.__name__] = {path.name for path in (tmp_path / side.__name__ / "checkpoint-8").iterdir()}
    pickles = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"}
    assert pickles <= names["transformers"]
    assert not pickles & names["surestep"]
    assert {"model.safetensors", "trainer_state.json"} <= names["transformers"] & names["surestep"]
    assert all(name.endswith((".json", ".safetensors")) for name in names["surestep"])

    ours = tmp_path / "surestep"
    theirs = go_on(transformers, ours, "checkpoint-8", {**SAVED, "max_steps": 8})
    # It takes weights and state up, and one step more (see C7) with an optimizer that starts anew.
    assert theirs.state.global_step == 9
    assert all(state["step"] == 1 for state in theirs.optimizer["state"].values())


@shows("C2")
def test_a_save_that_fails_leaves_nothing(tmp_path: Path) -> None:
    places: list[str] = []

    class Fails:
        def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
            places.append(self._get_output_dir(None))
            raise OSError("the disk is full")

    for side in SIDES:
        with pytest.raises(OSError, match="disk is full"):
            begin(side, tmp_path / side.__name__, mixin=Fails)
    assert (tmp_path / "transformers" / "checkpoint-2").is_dir()
    assert not list((tmp_path / "surestep").glob("*checkpoint*"))
    assert places[0] == str(tmp_path / "transformers")
    assert Path(places[1]).parent == tmp_path / "surestep"


@shows("C3")
def test_true_falls_back_to_the_newest_that_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for side in SIDES:
        folder = tmp_path / side.__name__
        begin(side, folder)
        weights = folder / "checkpoint-8" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:40])
    with pytest.raises(Exception, match="deserializing"):
        go_on(transformers, tmp_path / "transformers", True)
    with caplog.at_level(logging.WARNING, logger="surestep"):
        ours = go_on(surestep, tmp_path / "surestep", True)
    assert ours.state.global_step == 8
    assert len(ours.losses) == 2
    assert "checkpoint-8 is passed over" in caplog.text
    assert "damaged-checkpoint-8" in ours.files
    with pytest.raises(ValueError, match="is damaged"):
        go_on(surestep, tmp_path / "surestep", "damaged-checkpoint-8")


@shows("C4")
def test_true_with_nothing_there_starts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="No valid checkpoint"):
        go_on(transformers, tmp_path, True)
    with caplog.at_level(logging.WARNING, logger="surestep"):
        assert len(go_on(surestep, tmp_path, True).losses) == 8
    assert "training starts anew" in caplog.text


@shows("C5")
def test_the_state_of_callbacks_is_always_put_back(tmp_path: Path) -> None:
    arguments = {
        **SAVED,
        "max_steps": 12,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "metric_for_best_model": "loss",
        "greater_is_better": True,
    }

    def objects() -> dict[str, Any]:
        return {"evaluate": lambda: Points(8, seed=1), "callbacks": lambda side: [side.EarlyStoppingCallback(4)]}

    stopped = {}
    for side in SIDES:
        folder = tmp_path / side.__name__
        assert begin(side, folder, arguments, **objects()).state.global_step == 10
        for asked in (False, True):
            settings = {**arguments, "restore_callback_states_from_checkpoint": asked}
            stopped[side.__name__, asked] = go_on(side, folder, "checkpoint-6", settings, **objects()).state.global_step
    assert stopped == {
        ("transformers", False): 12,
        ("transformers", True): 10,
        ("surestep", False): 10,
        ("surestep", True): 10,
    }


@shows("C6")
def test_the_intervals_of_today_count(tmp_path: Path) -> None:
    seen = {}
    for side in SIDES:
        folder = tmp_path / side.__name__
        begin(side, folder)
        seen[side.__name__] = go_on(side, folder, "checkpoint-4", {**SAVED, "logging_steps": 1})
    assert loss_steps(seen["transformers"]) == [2, 4, 6, 8]
    assert loss_steps(seen["surestep"]) == [2, 4, 5, 6, 7, 8]


@shows("C7")
def test_a_finished_run_takes_no_step_more(tmp_path: Path) -> None:
    steps = {}
    for side in SIDES:
        begin(side, tmp_path / side.__name__)
        steps[side.__name__] = go_on(side, tmp_path / side.__name__, "checkpoint-8").state.global_step
    assert steps == {"transformers": 9, "surestep": 8}


@shows("C8")
def test_the_mean_loss_is_that_of_the_run(tmp_path: Path) -> None:
    arguments = {**SAVED, "logging_steps": 3}
    for side in SIDES:
        folder = tmp_path / side.__name__
        whole = begin(side, folder, arguments)
        part = go_on(side, folder, "checkpoint-4", arguments)
        assert part.losses == whole.losses[4:]
        mean = pytest.approx(sum(part.losses) / 4, rel=1e-6)
        log = next(entry["loss"] for entry in part.logs if "loss" in entry and entry["step"] == 6)
        if side is transformers:
            assert part.output.training_loss == mean
            # Step 4 belongs to this log as well.
            assert log == pytest.approx(sum(whole.losses[4:6]) / 2, rel=1e-6)
        else:
            assert part.output.training_loss == whole.output.training_loss != mean
            assert log == next(entry["loss"] for entry in whole.logs if "loss" in entry and entry["step"] == 6)
            logged = [entry for entry in part.logs if "loss" in entry and entry["step"] > 6]
            assert logged == []


@shows("C9")
def test_what_the_end_of_an_epoch_asks_for_is_done_on_resume(tmp_path: Path) -> None:
    arguments = {**SAVED, "logging_strategy": "epoch", "eval_strategy": "epoch", "max_steps": 12}
    steps = {}
    for side in SIDES:
        folder = tmp_path / side.__name__
        begin(side, folder, arguments, evaluate=lambda: Points(8, seed=1))
        part = go_on(side, folder, "checkpoint-6", arguments, evaluate=lambda: Points(8, seed=1))
        evaluated = [entry["step"] for entry in part.logs if "eval_loss" in entry]
        steps[side.__name__] = (loss_steps(part), evaluated)
    assert steps == {"transformers": ([12], [12]), "surestep": ([6, 12], [6, 12])}
    by_steps = {**arguments, "logging_strategy": "steps", "logging_steps": 6, "eval_strategy": "steps", "eval_steps": 6}
    folder = tmp_path / "by steps"
    begin(transformers, folder, by_steps, evaluate=lambda: Points(8, seed=1))
    part = go_on(transformers, folder, "checkpoint-6", by_steps, evaluate=lambda: Points(8, seed=1))
    assert loss_steps(part) == [6, 12]


@shows("C10")
def test_another_batch_size_sees_each_sample_of_the_epoch_once(tmp_path: Path) -> None:
    changed, order, seen = {**SAVED, "per_device_train_batch_size": 2}, {}, {}
    for side in SIDES:
        folder = tmp_path / side.__name__
        order[side.__name__] = begin(side, folder).numbers
        seen[side.__name__] = go_on(side, folder, "checkpoint-4", changed).numbers
    assert order["transformers"] == order["surestep"]
    # The samples of the second half of the first 16 come again.
    assert seen["transformers"] == order["transformers"][8:16]
    assert seen["surestep"] == order["surestep"][16:24]


@shows("C11")
def test_what_a_checkpoint_of_weights_lacks_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arguments = {**SAVED, "save_only_model": True}
    for side in SIDES:
        folder = tmp_path / side.__name__
        begin(side, folder, arguments)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            part = go_on(side, folder, "checkpoint-4", arguments)
        assert len(part.losses) == 4
        assert all(state["step"] == 4 for state in part.optimizer["state"].values())
        told = "no state of the optimizer" in caplog.text
        assert told == (side is surestep)


@shows("C12")
def test_the_state_file_has_the_state_that_callbacks_have(tmp_path: Path) -> None:
    counters = {}
    for side in SIDES:
        folder = tmp_path / side.__name__
        arguments = {**BASE, "eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "loss"}

        def train_and_save(trainer: Any) -> Any:
            trainer.train()
            return trainer.save_state()

        begin(
            side,
            folder,
            {**arguments, "greater_is_better": True},
            evaluate=lambda: Points(8, seed=1),
            callbacks=lambda side: [side.EarlyStoppingCallback(9)],
            drive=train_and_save,
        )
        state = json.loads((folder / "trainer_state.json").read_text())
        counters[side.__name__] = state["stateful_callbacks"]["EarlyStoppingCallback"]["attributes"]
    assert counters["transformers"] == {"early_stopping_patience_counter": 0}
    assert counters["surestep"] == {"early_stopping_patience_counter": 3}


def test_both_sides_write_the_same_weights(tmp_path: Path) -> None:
    files = [tmp_path / side.__name__ / "checkpoint-8" / "model.safetensors" for side in SIDES]
    for side in SIDES:
        begin(side, tmp_path / side.__name__)
    theirs, ours = (load_file(file) for file in files)
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(value, ours[name]) for name, value in theirs.items())


@shows("C13")
def test_weights_that_a_checkpoint_lacks(tmp_path: Path) -> None:
    begin(transformers, tmp_path)
    path = tmp_path / "checkpoint-4" / "model.safetensors"
    weights = load_file(path)
    weights.pop("last.weight")
    save_file(weights, path)

    class Known(Net):
        # The original asks for it before it warns; models of transformers have it.
        _keys_to_ignore_on_save = None

    assert go_on(transformers, tmp_path, "checkpoint-4", model=Known).state.global_step == 8
    with pytest.raises(CheckpointError, match="do not fit the model"):
        go_on(surestep, tmp_path, "checkpoint-4")


@shows("C14")
def test_an_optimizer_without_its_schedule(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begin(transformers, tmp_path)
    (tmp_path / "checkpoint-4" / "scheduler.pt").unlink()
    theirs = go_on(transformers, tmp_path, "checkpoint-4", {**SAVED, "save_strategy": "no"})
    assert all(state["step"] == 4 for state in theirs.optimizer["state"].values())
    with caplog.at_level(logging.WARNING, logger="surestep"):
        ours = go_on(surestep, tmp_path, "checkpoint-4", {**SAVED, "save_strategy": "no"})
    assert all(state["step"] == 8 for state in ours.optimizer["state"].values())
    assert "holds no state of the schedule: resuming starts that anew" in caplog.text


class _Full:
    """Finds the disk full in the middle of the save of step 4."""

    def _save_rng_state(self, output_dir: str) -> None:
        if self.state.global_step == 4:  # type: ignore[attr-defined]
            raise OSError(errno.ENOSPC, "No space left on device")
        super()._save_rng_state(output_dir)  # type: ignore[misc]


@shows("C15")
def test_a_save_that_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    theirs, ours = (tmp_path / side.__name__ for side in SIDES)
    with pytest.raises(OSError, match="No space left"):
        begin(transformers, theirs, mixin=_Full)
    assert (theirs / "checkpoint-4" / "model.safetensors").exists()
    assert not (theirs / "checkpoint-4" / "trainer_state.json").exists()
    with caplog.at_level(logging.WARNING, logger="surestep"):
        assert begin(surestep, ours, mixin=_Full).state.global_step == 8
    assert "Step 4: " in caplog.text
    assert sorted(path.name for path in ours.glob("*checkpoint*")) == [f"checkpoint-{step}" for step in (2, 6, 8)]


@shows("C16")
def test_checkpoints_of_an_earlier_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    left = {}
    for side in SIDES:
        folder = tmp_path / side.__name__
        run(side, {**SAVED, "max_steps": 3, "save_steps": 3}, folder=str(folder))
        with caplog.at_level(logging.WARNING, logger="surestep"):
            run(side, {**SAVED, "max_steps": 4, "save_steps": 2, "save_total_limit": 1}, folder=str(folder))
        left[side] = {path.name for path in folder.glob("checkpoint-*")}
    assert left[transformers] == {"checkpoint-4"}
    assert left[surestep] == {"checkpoint-3", "checkpoint-4"}
    assert "holds checkpoints of another run, up to checkpoint-3. They stay" in caplog.text


@shows("C24")
def test_a_url_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for side in SIDES:
        trainer = run(side, {**SAVED, "max_steps": 1, "save_steps": 1}, folder=f"run-{side.__name__}").trainer
        if side is transformers:
            side.TrainingArguments("s3://bucket/run")
            trainer.save_model("s3://bucket/model")
            assert (tmp_path / "s3:" / "bucket" / "model" / "model.safetensors").is_file()
            continue
        with pytest.raises(ValueError, match="save_remote='s3://bucket/run'"):
            side.TrainingArguments("s3://bucket/run")
        with pytest.raises(ValueError, match="'s3://bucket/model' is a URL"):
            trainer.save_model("s3://bucket/model")


class Signals:
    """A callback that sends the process a signal at the end of the third step, and takes its time for each."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.02)


@pytest.fixture
def own_handler() -> Iterator[list[int]]:
    """Keep SIGTERM from ending the tests; return what came."""
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    yield came
    signal.signal(signal.SIGTERM, before)


def signalled(side: Any, folder: Path, **settings: Any) -> Any:
    callback = type("Signals", (Signals, side.TrainerCallback), {})
    return begin(side, folder, {**SAVED, "save_steps": 100, **settings}, callbacks=lambda side: [callback])


@shows("C21")
def test_a_signal_ends_the_run_after_its_step(tmp_path: Path, own_handler: list[int]) -> None:
    assert signalled(transformers, tmp_path / "theirs").state.global_step == 8
    with pytest.raises(surestep.Interrupted) as stop:
        signalled(surestep, tmp_path / "ours")
    assert (stop.value.code, stop.value.step, own_handler) == (143, 3, [signal.SIGTERM] * 2)
    assert [path.name for path in (tmp_path / "ours").glob("checkpoint-*")] == ["checkpoint-3"]
    assert signalled(surestep, tmp_path / "left", on_signal="leave").state.global_step == 8


@shows("C22")
def test_a_checkpoint_on_sigterm(tmp_path: Path, own_handler: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.trainer_jit_checkpoint import CheckpointManager

    monkeypatch.setattr(CheckpointManager.__init__, "__defaults__", (0,))
    asked = {"enable_jit_checkpoint": True, "save_strategy": "no"}
    theirs = signalled(transformers, tmp_path / "theirs", **asked)
    assert theirs.state.global_step < 8
    assert list((tmp_path / "theirs").glob("checkpoint-*"))
    with pytest.raises(surestep.Interrupted):
        signalled(surestep, tmp_path / "ours", **asked)
    assert (tmp_path / "ours" / "checkpoint-3").is_dir()


class Breaks(Points):
    """Cannot be read any more after a while."""

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        self.reads = getattr(self, "reads", 0) + 1
        if self.reads > 20:
            raise ValueError("a sample that cannot be read")
        return super().__getitem__(index)


@shows("C23")
def test_an_exception_in_training(tmp_path: Path) -> None:
    left = {}
    for side in SIDES:
        folder = tmp_path / side.__name__
        with pytest.raises(ValueError, match="cannot be read"):
            run(side, {**SAVED, "save_steps": 3}, folder=str(folder), **{**OBJECTS, "train": lambda: Breaks(24)})
        left[side] = sorted(path.name for path in folder.glob("checkpoint-*"))
    assert left == {transformers: ["checkpoint-3"], surestep: ["checkpoint-3", "checkpoint-5"]}
    whole = begin(surestep, tmp_path / "whole")
    part = go_on(surestep, tmp_path / "surestep", True)
    assert torch.equal(part.weights["last.weight"], whole.weights["last.weight"])
