"""Checkpoints that are sent while training goes on (`save_async`): none is lost, none is deleted before it is there."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small import Points, quick
from tests.unit.checkpoint.remote_stores import URL, Faulty, remote, whole

from surestep import Trainer, TrainerCallback
from surestep.errors import SaveError
from surestep.runtime.remote_folder import RemoteFolder

SAVES = {"save_strategy": "steps", "save_steps": 1, "save_remote": URL, "max_steps": 5, "save_async": True}


@pytest.fixture(autouse=True)
def _clean(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO, logger="surestep")
    Faulty.reset()
    yield
    Faulty.reset()


class Gate:
    """Holds back what is put until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.reached = threading.Event(), threading.Event()
        put = RemoteFolder.put

        def waits(folder: RemoteFolder, source: Path, name: str) -> None:
            if threading.current_thread() is not threading.main_thread():
                self.reached.set()
                assert self.open.wait(60)
            put(folder, source, name)

        monkeypatch.setattr(RemoteFolder, "put", waits)


class OpensAtStep(TrainerCallback):
    def __init__(self, gate: Gate, step: int) -> None:
        self.gate, self.step, self.there = gate, step, set[str]()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            assert self.gate.reached.wait(60)
            self.there = {path.name for path in Path(args.output_dir).glob("checkpoint-*")}
            self.gate.open.set()


def test_training_goes_on_meanwhile_and_nothing_is_deleted_before_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    looks = OpensAtStep(gate, 5)
    trainer = quick(tmp_path, **SAVES, save_total_limit=1, callbacks=[looks])
    trainer.train()
    # The first one was under way for four steps, and stayed here for as long.
    assert "checkpoint-1" in looks.there
    assert whole(remote()) == ["checkpoint-5"]
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*"))[-1] == "checkpoint-5"


def test_it_ends_as_a_run_that_waits(tmp_path: Path) -> None:
    alone = quick(tmp_path / "alone", **{**SAVES, "save_remote": None, "save_async": False})
    alone.train()
    first = quick(tmp_path / "first", **SAVES)
    with first.steps() as steps:
        for state in steps:
            if state.global_step == 3:
                break
    assert whole(remote())[-1] == "checkpoint-3"
    shutil.rmtree(tmp_path / "first")
    second = quick(tmp_path / "second", **SAVES)
    second.train(resume_from_checkpoint="auto")
    assert second.resume_report is not None
    assert second.resume_report.step == 3
    assert torch.equal(second.model.layer.weight, alone.model.layer.weight)
    assert whole(remote()) == [f"checkpoint-{step}" for step in range(1, 6)]


@pytest.mark.parametrize("stops", [False, True])
def test_a_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stops: bool
) -> None:
    def do(self: Faulty, name: str, path: str) -> None:
        if name == "put" and "checkpoint-" in path:
            raise PermissionError(13, "Access denied")

    monkeypatch.setattr(Faulty, "_do", do)
    trainer = quick(tmp_path, **SAVES, on_save_error="stop" if stops else "continue")
    with pytest.raises(SaveError, match="could not be sent" if stops else "last checkpoint is not in"):
        trainer.train()
    if not stops:
        assert "Training goes on, and the next save tries again" in caplog.text
        assert trainer.state.global_step == 5
    assert whole(remote()) == []
    assert not [thread for thread in threading.enumerate() if thread.name == "surestep-remote"]


def test_an_exception_waits_for_what_is_sent_and_sends_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)

    class Breaks(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                assert gate.reached.wait(60)
                threading.Timer(0.3, gate.open.set).start()
                raise RuntimeError("broken")

    trainer: Trainer = quick(tmp_path, **SAVES, callbacks=[Breaks()], train_dataset=Points())
    with pytest.raises(RuntimeError, match="broken"):
        trainer.train()
    assert whole(remote())[-1] == "checkpoint-3"
