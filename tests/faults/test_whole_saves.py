"""A trainer's own save, with everything that is in it: a fault between any two of its operations."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from surestep import Trainer
from surestep.callbacks.averaging import EMACallback
from surestep.checkpoint.layout import checkpoints_in
from surestep.runtime.disk import writing_through
from tests.faults.disk import Dead, Fault, FaultyDisk, inodes
from tests.small import Points, quick
from tests.unit.checkpoint.stores import make_store, names

MOST = 400


@pytest.fixture(autouse=True)
def _nobody_waits() -> Iterator[None]:
    with writing_through(FaultyDisk()):
        yield


def trainer_of(folder: Path, **settings: Any) -> Trainer:
    """A run of 6 steps that saves at each and keeps the newest two, with much in a checkpoint besides the weights."""
    usual: dict[str, Any] = {
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": 2,
        "max_steps": 6,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "eval_dataset": Points(4),
        "track_best": ["loss"],
        "metric_for_best_model": "loss",
        "callbacks": [EMACallback()],
    }
    return quick(folder, **{**usual, **settings})


@contextmanager
def standing(folder: Path) -> Iterator[Trainer]:
    """Give a trainer that stands after its fourth step, whose checkpoint is its next."""
    trainer = trainer_of(folder)
    with trainer.steps() as steps:
        for state in steps:
            if state.global_step == 4:
                break
        shutil.rmtree(folder / "checkpoint-4")
        yield trainer


def another_place(trainer: Trainer, before: Path, root: Path) -> None:
    """Have a trainer save into a copy of its folder, as a process of its own would."""
    shutil.copytree(before, root)
    trainer.args.output_dir = str(root)
    run = trainer._store.run
    trainer._store.release()
    trainer._store = trainer._make_store()
    trainer._store.run = run
    trainer._saves._store = trainer._store
    trainer._staging_root = None
    trainer._store.claim()


def content(folder: Path) -> bytes:
    """Return what tells one checkpoint from another: its manifest, in which every file has its checksum."""
    return (folder / "manifest.json").read_bytes()


def goes_on(root: Path) -> torch.Tensor:
    """Resume and return the weights at the end."""
    trainer = trainer_of(root)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 6
    weights: torch.Tensor = trainer.model.layer.weight.detach().clone()
    return weights


def each_place(scratch: Path, fault: Callable[[int], Fault], check: Callable[[Trainer, Path, FaultyDisk], None]) -> int:
    """Save with a fault at each operation in turn, `check` what became of it, and return how many there were."""
    with standing(scratch / "begun") as trainer:
        before = scratch / "before"
        shutil.copytree(scratch / "begun", before)
        for at in range(MOST):
            root, disk = scratch / "run", FaultyDisk(fault(at))
            another_place(trainer, before, root)
            safe = inodes(root)
            with writing_through(disk), suppress(Dead):
                trainer._save_whole(trainer.model_wrapped, None)
            if disk.dead:
                disk.lose_power(root, safe)
            trainer._store.release()
            check(trainer, root, disk)
            shutil.rmtree(root)
            if not disk.hit:
                return at
    pytest.fail("the save did not come to its end")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """Return the weights of a run without a fault."""
    trainer = trainer_of(tmp_path_factory.mktemp("whole"))
    trainer.train()
    weights: torch.Tensor = trainer.model.layer.weight.detach().clone()
    return weights


def test_a_crash_anywhere_in_a_save_loses_nothing_but_that_save(scratch: Path, reference: torch.Tensor) -> None:
    outcomes: dict[str, int] = {}

    def check(trainer: Trainer, root: Path, disk: FaultyDisk) -> None:
        store = make_store(root)
        assert all(not store.verify(path) for path in checkpoints_in(root)), disk.operations[-1]
        found = store.newest_valid()
        assert found.path is not None
        assert found.passed_over == []
        assert not any("checkpoint" in name for name in names(root) - {path.name for path in checkpoints_in(root)})
        outcomes[found.path.name] = outcomes.get(found.path.name, 0) + 1
        # What the end of a resumed run is follows from the checkpoint, so each kind is resumed from once.
        if outcomes[found.path.name] == 1:
            assert torch.equal(goes_on(root), reference)

    places = each_place(scratch, Fault, check)
    assert places > 60
    assert set(outcomes) == {"checkpoint-3", "checkpoint-4"}


@pytest.mark.parametrize(("error", "lasting"), [(errno.ENOSPC, True), (errno.EIO, False)])
def test_an_error_anywhere_in_a_save_is_told_and_leaves_nothing(
    scratch: Path, reference: torch.Tensor, error: int, lasting: bool, caplog: pytest.LogCaptureFixture
) -> None:
    failed = 0

    def check(trainer: Trainer, root: Path, disk: FaultyDisk) -> None:
        nonlocal failed
        there = {path.name for path in checkpoints_in(root)}
        told = "could not be saved" in caplog.text
        caplog.clear()
        failed += told
        assert told or "checkpoint-4" in there, disk.operations
        assert not (told and "checkpoint-4" in there), disk.operations
        store = make_store(root)
        assert all(not store.verify(path) for path in checkpoints_in(root))
        # The next save of the same process, which finds the disk working.
        trainer._store.claim()
        assert trainer._save_whole(trainer.model_wrapped, None)
        trainer._store.release()
        assert {name for name in names(root) if "checkpoint" in name} == {"checkpoint-3", "checkpoint-4"}
        if told and failed == 1:
            assert torch.equal(goes_on(root), reference)

    assert each_place(scratch, lambda at: Fault(at, error, lasting), check) > 60
    assert failed > 50
