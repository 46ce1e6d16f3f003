"""`resume_from_checkpoint="auto"`: the first time, the n-th time, after the end, and beside other runs."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small import Points, quick

from surestep import EarlyStoppingCallback, Trainer, TrainerCallback
from surestep.callbacks.trackers.jsonl import LOG_NAME
from surestep.checkpoint.origin import read_origin
from surestep.checkpoint.run_record import RUN_RECORD, read_record
from surestep.errors import CheckpointError

SAVES: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "num_train_epochs": 2}


class Dies(TrainerCallback):
    """Ends the process, as far as the run can tell, after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def auto(folder: Path, dies: int | None = None, **settings: Any) -> Trainer:
    callbacks = [*settings.pop("callbacks", []), *([] if dies is None else [Dies(dies)])]
    trainer = quick(folder, callbacks=callbacks, **{**SAVES, **settings})
    if dies is None:
        trainer.train(resume_from_checkpoint="auto")
    else:
        with pytest.raises(KeyboardInterrupt):
            trainer.train(resume_from_checkpoint="auto")
    return trainer


def began_at(trainer: Trainer) -> int:
    return 0 if trainer.resume_report is None else trainer.resume_report.step


def said(caplog: pytest.LogCaptureFixture, level: str) -> str:
    return "\n".join(record.getMessage() for record in caplog.records if record.levelname == level)


def test_the_same_call_starts_goes_on_and_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = quick(tmp_path / "whole", **SAVES)
    whole.train()
    folder = tmp_path / "run"
    starts = [began_at(auto(folder, dies)) for dies in (1, 5, 7)]
    last = auto(folder)

    assert [*starts, began_at(last)] == [0, 0, 4, 6]
    assert torch.equal(last.model.layer.weight, whole.model.layer.weight)
    assert "there is no checkpoint in" in said(caplog, "INFO")
    assert said(caplog, "WARNING") == ""


def test_a_run_that_is_complete_returns_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = auto(tmp_path)
    assert first.train_output is not None
    log = (tmp_path / LOG_NAME).read_bytes()
    heard: list[str] = []

    class Listens(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            heard.append("begin")

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            heard.append("step")

    again = auto(tmp_path, callbacks=[Listens()])
    assert heard == []
    assert again.train_output == first.train_output
    assert again.state.log_history == first.state.log_history
    assert torch.equal(again.model.layer.weight, first.model.layer.weight)
    assert (tmp_path / LOG_NAME).read_bytes() == log
    assert "is complete, at step 10: no step is made" in said(caplog, "INFO")
    assert again.resume_report is not None
    assert again.resume_report.complete


def test_a_complete_run_is_made_longer(tmp_path: Path) -> None:
    auto(tmp_path)
    longer = auto(tmp_path, num_train_epochs=3)

    assert began_at(longer) == 10
    assert longer.state.global_step == 15


def test_a_complete_run_gives_its_best_model(tmp_path: Path) -> None:
    settings = {
        "eval_dataset": Points(4), "eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True,
        "save_total_limit": 1, "greater_is_better": True,
    }  # fmt: skip
    first = auto(tmp_path, **settings)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    again = auto(tmp_path, **settings)

    assert again.state.global_step == 10
    assert again.state.best_global_step == 2
    assert torch.equal(again.model.layer.weight, first.model.layer.weight)


def test_a_run_that_stopped_early_is_complete(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {
        "eval_dataset": Points(4), "eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True,
        "greater_is_better": True,
    }  # fmt: skip
    first = auto(tmp_path, **settings, callbacks=[EarlyStoppingCallback(1)])
    assert first.state.global_step == 4
    again = auto(tmp_path, **settings, callbacks=[EarlyStoppingCallback(1)])

    assert again.train_output == first.train_output
    assert "It got no better" in caplog.text


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    class Stops(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = control.should_save = state.global_step == 3

    auto(tmp_path, callbacks=[Stops()])
    rest = auto(tmp_path)

    assert began_at(rest) == 3
    assert rest.state.global_step == 10


def test_damaged_folders_are_set_aside_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    auto(tmp_path, dies=9)
    for name in ("checkpoint-8", "checkpoint-6"):
        (tmp_path / name / "model.safetensors").write_bytes(b"")
    trainer = auto(tmp_path)

    assert began_at(trainer) == 4
    assert said(caplog, "WARNING").count("The damaged checkpoint is kept as") == 2
    assert (tmp_path / "damaged-checkpoint-8").is_dir()


def test_a_folder_in_which_nothing_is_whole_is_begun_anew_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    auto(tmp_path, dies=3)
    (tmp_path / "checkpoint-2" / "manifest.json").unlink()
    trainer = auto(tmp_path)

    assert began_at(trainer) == 0
    assert "training starts anew" in said(caplog, "WARNING")


# Another run in the folder


def test_a_run_goes_on_from_its_own_checkpoints_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    auto(tmp_path)
    second = quick(tmp_path, callbacks=[Dies(5)], **SAVES)
    with pytest.raises(KeyboardInterrupt):
        second.train()
    assert "holds checkpoints of another run, up to checkpoint-10. They stay" in caplog.text

    third = auto(tmp_path)
    assert began_at(third) == 4
    origin, record = read_origin(tmp_path / "checkpoint-10"), read_record(tmp_path)
    assert origin is not None
    assert record is not None
    assert origin.run == record.run


def test_a_run_that_died_before_its_first_save_does_not_take_up_anothers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    auto(tmp_path, dies=5)
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path, callbacks=[Dies(1)], **SAVES).train()
    third = auto(tmp_path)

    assert began_at(third) == 0
    assert "They are not resumed, because a run was begun here after them" in caplog.text


def test_a_folder_that_was_copied_is_gone_on_from(tmp_path: Path) -> None:
    auto(tmp_path / "one", dies=5)
    shutil.copytree(tmp_path / "one" / "checkpoint-4", tmp_path / "two" / "checkpoint-4")

    assert began_at(auto(tmp_path / "two")) == 4


def test_a_record_that_cannot_be_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    auto(tmp_path, dies=5)
    (tmp_path / RUN_RECORD).write_text("{")

    assert began_at(auto(tmp_path)) == 4
    assert "every checkpoint beside it counts as this run's" in caplog.text


# How it is asked for


def test_the_arguments_may_say_it(tmp_path: Path) -> None:
    auto(tmp_path, dies=5)
    trainer = quick(tmp_path, **SAVES, resume_from_checkpoint="auto")
    trainer.train()
    assert began_at(trainer) == 4

    anew = quick(tmp_path, **SAVES, resume_from_checkpoint="auto")
    anew.train(resume_from_checkpoint=False)
    assert anew.resume_report is None


def test_true_with_nothing_there_is_an_error_where_it_is_strict(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"resume_strict=True makes an error.*resume_from_checkpoint='auto'"):
        quick(tmp_path, **SAVES, resume_strict=True).train(resume_from_checkpoint=True)

    assert began_at(auto(tmp_path, resume_strict=True)) == 0


def test_a_read_only_folder_keeps_its_damaged_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto(tmp_path, dies=5)
    (tmp_path / "checkpoint-4" / "model.safetensors").write_bytes(b"")

    def refuses(*_: Any) -> Path:
        raise PermissionError("read-only")

    monkeypatch.setattr("surestep.checkpoint.store.CheckpointStore.set_aside", refuses)
    with caplog.at_level(logging.WARNING, logger="surestep"):
        assert began_at(auto(tmp_path)) == 2
    assert "stays where it is" in caplog.text


def test_what_a_run_left_beyond_its_limit_is_removed_when_it_goes_on(tmp_path: Path) -> None:
    """As one does that dies between a save and the removal of an older checkpoint."""
    auto(tmp_path, dies=9)
    auto(tmp_path, dies=9, save_total_limit=2)

    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-6", "checkpoint-8"]
