"""Saves that are finished while training goes on, and what can go wrong with them: the disk, signals, exceptions."""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from surestep import Trainer, TrainerCallback
from surestep.checkpoint.store import CheckpointStore
from surestep.errors import Interrupted, SaveError
from surestep.runtime.disk import Disk, writing_through
from surestep.runtime.world import World
from tests.small import Points, quick
from tests.unit.checkpoint.stores import names

THREAD = "surestep-writer"
LATER: dict[str, Any] = {"save_async": True, "save_strategy": "steps", "save_steps": 2, "num_train_epochs": 2}


class Slow(Disk):
    """A disk on which the writing thread comes no further than its first file until it is let go, or fails there.

    `held` is the step whose checkpoint waits so, or True for all.
    """

    def __init__(self, *, held: bool | int = False) -> None:
        self.held = held
        self.begun, self.go = threading.Event(), threading.Event()
        self.errors: dict[int, BaseException] = {}
        self.left: list[str] = []
        if held is False:
            self.go.set()

    def write(self, path: Path, parts: Iterable[bytes | memoryview]) -> None:
        if threading.current_thread().name == THREAD:
            self.begun.set()
            if self.held is True or f"checkpoint-{self.held}" in path.parts:
                assert self.go.wait(60)
            for step, error in self.errors.items():
                if f"checkpoint-{step}" in path.parts:
                    raise error
        super().write(path, parts)


class Hears(TrainerCallback):
    """Notes which step each save was of, at which step it was told, and whether the checkpoint was there."""

    def __init__(self) -> None:
        self.saved: list[int] = []
        self.told_at: list[int] = []
        self.whole: list[bool] = []
        self.trainer: Any = None

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saved.append(state.global_step)
        self.told_at.append(self.trainer.state.global_step)
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self.whole.append(folder.is_dir() and not self.trainer._store.verify(folder))
        assert threading.current_thread() is threading.main_thread()


class At(TrainerCallback):
    """Does something at the end of some steps."""

    def __init__(self, **work: Any) -> None:
        self.work = {int(name.removeprefix("step_")): does for name, does in work.items()}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.work:
            self.work[state.global_step](control)


def later(
    folder: Path, disk: Slow, kind: type[Trainer] = Trainer, at: At | None = None, **settings: Any
) -> tuple[Trainer, Hears]:
    """A trainer of 10 steps that saves every second one."""
    hears = Hears()
    trainer = quick(folder, kind, **{**LATER, "callbacks": [hears, *([at] if at else [])], **settings})
    hears.trainer = trainer
    return trainer, hears


def train(trainer: Trainer, disk: Disk, **how: Any) -> Any:
    with writing_through(disk):
        return trainer.train(**how)


def there(folder: Path) -> set[str]:
    return names(folder) - {"train_log.jsonl"}


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Any:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name == "surestep-writer"] == []


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = Slow(held=True)
    seen: list[set[str]] = []

    def look(control: Any) -> None:
        assert disk.begun.wait(60)
        seen.append(there(tmp_path))
        if len(seen) == 3:
            disk.go.set()

    trainer, hears = later(tmp_path, disk, at=At(step_5=look, step_6=look, step_7=look), save_steps=4)
    train(trainer, disk)
    # Three steps were made, and nothing of that name was there.
    assert seen == [{".staging-checkpoint-4"}] * 3
    assert hears.saved == [4, 8, 10]
    assert hears.told_at[0] in {7, 8}
    assert hears.told_at[2] == 10
    assert hears.whole == [True] * 3
    assert there(tmp_path) == {"checkpoint-4", "checkpoint-8", "checkpoint-10"}
    plain = quick(tmp_path / "plain", num_train_epochs=2)
    plain.train()
    assert torch.equal(trainer.model.layer.weight, plain.model.layer.weight)


def test_a_save_waits_for_the_one_before_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = Slow(held=True)
    trainer, hears = later(tmp_path, disk, at=At(step_4=lambda _: threading.Timer(0.2, disk.go.set).start()))
    train(trainer, disk)
    assert hears.saved == [2, 4, 6, 8, 10]
    # The first is told at the save that waited for it.
    assert hears.told_at[0] == 4
    assert caplog.text.count("waited") == 1
    assert "the save of step 4 waited 0." in caplog.text
    assert "raise save_steps (now 2)" in caplog.text


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_save_that_fails_later_costs_a_checkpoint(
    tmp_path: Path, error: int, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Slow()
    disk.errors = {step: OSError(error, os.strerror(error), "a file") for step in (4, 6)}
    trainer, hears = later(tmp_path, disk)
    train(trainer, disk)
    assert hears.saved == [2, 8, 10]
    assert there(tmp_path) == {"checkpoint-2", "checkpoint-8", "checkpoint-10"}
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 2
    assert told[0].startswith(f"Step 4: '{tmp_path / 'checkpoint-4'}' could not be saved: [Errno {error}]")
    assert "Nothing of it is left behind" in told[0]
    assert "2 of 5 saves failed, those of step 4, 6." in caplog.text
    again, _ = later(tmp_path, disk)
    again.train(resume_from_checkpoint="auto")
    assert torch.equal(again.model.layer.weight, trainer.model.layer.weight)


def test_stop_ends_the_run_at_the_next_step(tmp_path: Path) -> None:
    disk = Slow()
    disk.errors = {4: OSError(errno.ENOSPC, "No space left on device")}
    trainer, _ = later(tmp_path, disk, on_save_error="stop")
    with pytest.raises(SaveError, match=r"Step 4: .*checkpoint-4.*No space left.*on_save_error=\"stop\""):
        train(trainer, disk)
    # How soon it is known is the thread's affair.
    assert trainer.state.global_step in {4, 5, 6}
    assert there(tmp_path) == {"checkpoint-2"}


def test_a_run_whose_last_save_fails_later_does_not_end_as_a_success(tmp_path: Path) -> None:
    disk = Slow()
    disk.errors = {10: OSError(errno.EIO, "broken")}
    trainer, hears = later(tmp_path, disk)
    with pytest.raises(SaveError, match=r"last checkpoint is not saved\. Step 10: .*broken"):
        train(trainer, disk)
    assert hears.saved == [2, 4, 6, 8]
    assert trainer.train_output is not None


def test_what_is_not_the_disks_fault_is_raised_by_the_training(tmp_path: Path) -> None:
    disk = Slow()
    disk.errors = {4: ZeroDivisionError("a bug")}
    trainer, _ = later(tmp_path, disk)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        train(trainer, disk)
    assert there(tmp_path) == {"checkpoint-2"}


def test_a_disk_that_is_full_at_the_save_fails_it_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Full(Slow):
        def write(self, path: Path, parts: Iterable[bytes | memoryview]) -> None:
            if "checkpoint-4" in path.parts and path.name == "optimizer.json":
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            super().write(path, parts)

    disk = Full()
    trainer, hears = later(tmp_path, disk)
    train(trainer, disk)
    assert hears.saved == [2, 6, 8, 10]
    assert "Step 4: " in caplog.text
    assert there(tmp_path) == {f"checkpoint-{step}" for step in (2, 6, 8, 10)}


def scored(folder: Path, disk: Slow, **settings: Any) -> tuple[Trainer, Hears]:
    scores = [0.1, 0.2, 0.9, 0.3, 0.2]

    def figures(_: Any) -> dict[str, float]:
        step = trainer.state.global_step
        return {"score": scores[step // 2 - 1] if step else 0.0}

    evaluated = {"eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "score"}
    parts = {"greater_is_better": True, "eval_dataset": Points(4), "compute_metrics": figures}
    trainer, hears = later(folder, disk, **{**evaluated, **parts, **settings})
    return trainer, hears


def test_the_best_that_was_saved_is_loaded_where_the_best_was_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Slow()
    disk.errors = {6: OSError(errno.EIO, "broken")}
    trainer, _ = scored(tmp_path, disk, load_best_model_at_end=True, save_total_limit=1, track_best=["score"])
    train(trainer, disk)
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-4")
    assert "The best model (step 6, 0.9) could not be saved" in caplog.text
    assert (tmp_path / "best.json").read_text().count("null") == 1


def test_what_is_kept_does_not_depend_on_how_fast_the_disk_is(tmp_path: Path) -> None:
    """The evaluation of step 8 compares with the checkpoint of step 6, which is being written."""
    saved = []
    for name, later_on, slow in (("whole", False, False), ("fast", True, False), ("slow", True, True)):
        disk = Slow(held=6 if slow else False)

        def let_go(control: Any, disk: Slow = disk) -> None:
            threading.Timer(0.1, disk.go.set).start()

        settings = {"save_keep_best": 1, "save_total_limit": 1, "save_steps": 1000}
        trainer, hears = scored(tmp_path / name, disk, at=At(step_8=let_go), save_async=later_on, **settings)
        train(trainer, disk)
        saved.append(hears.saved)
        assert there(tmp_path / name) == {"checkpoint-6"}
    assert saved == [[2, 4, 6, 10]] * 3


# What ends a run


def test_a_signal_waits_for_the_save_and_makes_its_own(tmp_path: Path) -> None:
    disk = Slow(held=True)

    def asks(control: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Timer(0.1, disk.go.set).start()

    trainer, hears = later(tmp_path, disk, at=At(step_5=asks), save_steps=4)
    with pytest.raises(Interrupted) as caught:
        train(trainer, disk)
    assert caught.value.step == 5
    assert hears.saved == [4, 5]
    assert hears.whole == [True, True]
    again, _ = later(tmp_path, disk, save_steps=4)
    again.train(resume_from_checkpoint="auto")
    plain = quick(tmp_path / "plain", num_train_epochs=2)
    plain.train()
    assert torch.equal(again.model.layer.weight, plain.model.layer.weight)


def test_a_signal_at_the_step_of_a_save_does_not_save_twice(tmp_path: Path) -> None:
    disk = Slow(held=True)

    def asks(control: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Timer(0.1, disk.go.set).start()

    trainer, hears = later(tmp_path, disk, at=At(step_4=asks), save_steps=4)
    with pytest.raises(Interrupted):
        train(trainer, disk)
    assert hears.saved == [4]
    assert trainer._save_seconds >= 0.1


def test_going_back_waits_for_the_checkpoint_under_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = Slow(held=True)

    class Spoils(Trainer):
        spoiled = False

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            if self.state.global_step == 5 and not self.spoiled:
                self.spoiled = True
                threading.Timer(0.1, disk.go.set).start()
                return loss * float("nan")
            return loss

    trainer, hears = later(tmp_path, disk, Spoils, save_steps=4, nonfinite="rewind")
    train(trainer, disk)
    assert "training goes back to checkpoint-4" in caplog.text
    assert hears.saved == [4, 8, 10]
    assert trainer.state.global_step == 10


@pytest.mark.parametrize("saves", [True, False])
def test_an_exception_leaves_the_save_under_way_whole(tmp_path: Path, saves: bool) -> None:
    disk = Slow(held=True)

    class Fails(Trainer):
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            if self.state.global_step == 5:
                threading.Timer(0.1, disk.go.set).start()
                raise RuntimeError("planted")
            return super().training_step(*args, **kwargs)

    trainer, hears = later(tmp_path, disk, Fails, save_steps=4, save_on_exception=saves)
    with pytest.raises(RuntimeError, match="planted"):
        train(trainer, disk)
    assert hears.saved == ([4, 5] if saves else [4])
    assert there(tmp_path) == {f"checkpoint-{step}" for step in hears.saved}
    store = CheckpointStore(tmp_path, world=World())
    assert all(store.verify(path) == [] for path in tmp_path.glob("checkpoint-*"))


def test_a_failure_at_the_end_of_a_run_that_fails_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = Slow(held=True)
    disk.errors = {4: OSError(errno.EIO, "broken")}

    def fails(control: Any) -> None:
        threading.Timer(0.1, disk.go.set).start()
        raise KeyboardInterrupt

    trainer, _ = later(tmp_path, disk, at=At(step_5=fails), save_steps=4)
    with pytest.raises(KeyboardInterrupt):
        train(trainer, disk)
    assert "Step 4" in caplog.text
    assert "broken" in caplog.text


def test_the_steps_in_ones_own_hands_end_with_what_was_saved(tmp_path: Path) -> None:
    disk = Slow()
    trainer, hears = later(tmp_path, disk, save_steps=4)
    with writing_through(disk), trainer.steps() as steps:
        for state in steps:
            if state.global_step == 4:
                break
    assert hears.saved == [4]
    assert hears.whole == [True]


def test_a_second_training_begins_with_nothing_under_way(tmp_path: Path) -> None:
    disk = Slow()
    trainer, hears = later(tmp_path, disk, save_total_limit=1)
    for _ in range(2):
        train(trainer, disk)
        assert trainer._later is None
        assert hears.saved[-1] == 10
        assert list(tmp_path.glob("*checkpoint*")) == [tmp_path / "checkpoint-10"]


# When training waits all the same


class Copies(Trainer):
    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        (folder / "copy").write_bytes((folder / "model.safetensors").read_bytes())


def test_an_overridden_save_is_made_at_once_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="surestep"):
        trainer, hears = later(tmp_path, Slow(), Copies)
        trainer.train()
    assert hears.told_at == hears.saved == [2, 4, 6, 8, 10]
    assert "_save_checkpoint of Copies is overridden" in caplog.text
    for step in hears.saved:
        folder = tmp_path / f"checkpoint-{step}"
        assert (folder / "copy").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_the_memory_is_told_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="surestep"):
        later(tmp_path, Slow())[0].train()
    assert "keeps a copy of each checkpoint in host memory until it is on the disk: about" in caplog.text


@pytest.mark.parametrize("settings", [{"save_async": False}, {"save_strategy": "no"}])
def test_without_it_nothing_is_looked_at_between_steps(tmp_path: Path, settings: dict[str, Any]) -> None:
    looked = []
    trainer, _ = later(
        tmp_path, Slow(), at=At(step_1=lambda _: looked.append(type(trainer._look).__name__)), **settings
    )
    trainer.train()
    assert looked == ["Signals"]
