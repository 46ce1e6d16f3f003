"""What a resumed run says of itself: what was restored, what differs, and what stops it."""

from __future__ import annotations

import io
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small import Points, quick

from surestep import EarlyStoppingCallback, Trainer
from surestep.checkpoint.manifest import Header, seal
from surestep.checkpoint.origin import read_origin
from surestep.errors import CheckpointError
from surestep.trainer.resuming.report import ResumeReport

SAVES = {"save_strategy": "steps", "save_steps": 2, "num_train_epochs": 2, "lr_scheduler_type": "constant"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten steps of two epochs, saved after every second."""
    folder = tmp_path_factory.mktemp("run")
    quick(folder, callbacks=[EarlyStoppingCallback()], **SAVES, **EVALUATED).train()
    return folder


EVALUATED: dict[str, Any] = {
    "eval_dataset": Points(4),
    "eval_strategy": "epoch",
    "load_best_model_at_end": True,
    "metric_for_best_model": "loss",
    "greater_is_better": False,
}


def resumed(run: Path, folder: Path, step: int = 4, **settings: Any) -> Trainer:
    """Go on from a checkpoint in another folder, with some settings changed."""
    usual = {**SAVES, **EVALUATED, "callbacks": [EarlyStoppingCallback()], "save_strategy": "no"}
    trainer = quick(folder, **{**usual, "load_best_model_at_end": False, **settings})
    trainer.train(resume_from_checkpoint=str(run / f"checkpoint-{step}"))
    return trainer


def report_of(trainer: Trainer) -> ResumeReport:
    assert trainer.resume_report is not None
    return trainer.resume_report


def outcomes(report: ResumeReport) -> dict[str, str]:
    return {part.name: part.outcome for part in report.parts}


def verdicts(report: ResumeReport) -> dict[str, str]:
    return {one.name: one.verdict.effect.value for one in report.differences}


def test_a_new_run_has_none(tmp_path: Path) -> None:
    trainer = quick(tmp_path)
    trainer.train()

    assert trainer.resume_report is None


def test_where_it_goes_on_and_what_was_restored(run: Path, tmp_path: Path) -> None:
    report = report_of(resumed(run, tmp_path))

    assert report.checkpoint == run / "checkpoint-4"
    assert (report.step, report.max_steps, report.epoch, report.samples) == (4, 10, 0.8, 16)
    assert outcomes(report) == dict.fromkeys(
        ["weights", "optimizer", "schedule", "random generators", "position", "callbacks"], "restored"
    )
    assert report.origin is not None
    assert (report.origin.model, report.origin.optimizer, report.origin.samples) == ("Line", "AdamW", 20)
    assert report.origin.written >= report.origin.begun


def test_settings_that_differ_are_judged(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="surestep"):
        trainer = resumed(run, tmp_path, weight_decay=0.5, max_grad_norm=0.5, logging_steps=1)
    report = report_of(trainer)

    assert verdicts(report) == {
        "output_dir": "harmless",
        "weight_decay": "has no effect",
        "max_grad_norm": "changes the mathematics",
        "logging_steps": "harmless",
        "save_strategy": "harmless",
        "load_best_model_at_end": "changes the mathematics",
    }
    assert not report.exact
    assert "max_grad_norm           1.0 -> 0.5: changes the mathematics" in caplog.text
    assert json.loads(json.dumps(report.to_dict()))["differences"][1]["then"] == 0.0


@pytest.mark.parametrize(("name", "value"), [("learning_rate", 0.5), ("weight_decay", 0.5), ("adam_beta1", 0.1)])
def test_what_is_said_to_have_no_effect_has_none(run: Path, tmp_path: Path, name: str, value: float) -> None:
    same = resumed(run, tmp_path / "same")
    other = resumed(run, tmp_path / "other", **{name: value})

    assert verdicts(report_of(other))[name] == "has no effect"
    assert torch.equal(other.model.layer.weight, same.model.layer.weight)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"seed": 7}, "seed"),
        ({"train_sampling_strategy": "sequential"}, "train_sampling_strategy"),
        ({"train_dataset": Points(24)}, "train_dataset"),
        ({"optim": "sgd"}, "optim"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_mix_two_runs_is_refused_unless_allowed(
    run: Path, tmp_path: Path, settings: dict[str, Any], name: str
) -> None:
    with pytest.raises(
        CheckpointError, match=rf"checkpoint-4' is not resumed.*\n  - {name} was .* and is .*\n.*{name}"
    ):
        resumed(run, tmp_path, **settings)

    report = report_of(resumed(run, tmp_path, **settings, resume_allow=[name]))
    assert [
        (one.name, one.allowed) for one in report.differences if one.verdict.effect.value.startswith("refused")
    ] == [(name, True)]


def test_between_two_epochs_another_seed_only_changes_the_mathematics(run: Path, tmp_path: Path) -> None:
    # Step 5 ends the first epoch; its checkpoint is the only one of an epoch that is whole.
    quick(tmp_path / "five", **{**SAVES, "save_steps": 5}).train()
    trainer = quick(tmp_path / "rest", **{**SAVES, "save_strategy": "no"}, seed=7)
    trainer.train(resume_from_checkpoint=str(tmp_path / "five" / "checkpoint-5"))

    assert verdicts(report_of(trainer))["seed"] == "changes the mathematics"


def test_an_optimizer_of_another_kind_begins_anew_where_it_is_allowed(run: Path, tmp_path: Path) -> None:
    trainer = resumed(run, tmp_path, optim="sgd", optim_args="momentum=0.9", resume_allow=["optim"])

    assert outcomes(report_of(trainer))["optimizer"] == "begins anew"
    assert type(trainer.optimizer).__name__ == "SGD"
    assert trainer.state.global_step == 10


def test_parts_that_are_missing_are_named(tmp_path: Path) -> None:
    quick(tmp_path, **SAVES, save_only_model=True).train()
    trainer = quick(tmp_path / "rest", **SAVES)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))

    assert [part.name for part in report_of(trainer).named("missing")] == ["optimizer", "schedule", "random generators"]


# Strictness


def test_a_strict_run_is_the_same_run_or_none(run: Path, tmp_path: Path) -> None:
    strict = {"resume_strict": True, "load_best_model_at_end": True, "save_strategy": "steps"}
    assert report_of(resumed(run, tmp_path / "same", **strict)).exact

    with pytest.raises(
        CheckpointError,
        match=r"(?s)exactly.*\n  - max_grad_norm was 1.0 and is 0.5: changes the mathematics\n.*"
        r"resume_allow=\['max_grad_norm'\]",
    ):
        resumed(run, tmp_path / "other", **strict, max_grad_norm=0.5)

    assert not report_of(
        resumed(run, tmp_path / "allowed", **strict, max_grad_norm=0.5, resume_allow=["max_grad_norm"])
    ).exact


def test_a_strict_run_takes_nothing_incomplete(tmp_path: Path) -> None:
    quick(tmp_path, **SAVES, save_only_model=True).train()

    with pytest.raises(
        CheckpointError, match=r"(?s)- missing: optimizer.*- missing: schedule.*- missing: random generators"
    ):
        quick(tmp_path / "rest", **SAVES, resume_strict=True).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-4")
        )


# Another run


def test_a_checkpoint_of_another_model_is_told(run: Path, tmp_path: Path) -> None:
    other = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))

    with pytest.raises(
        CheckpointError,
        match=r"of another model: a Line of 2 tensors with 4 numbers, and here is a Sequential of 4 tensors with 11",
    ):
        resumed(run, tmp_path, model=other, train_dataset=Points())


# How it is shown


def test_the_table(run: Path, tmp_path: Path) -> None:
    shown = io.StringIO()
    report_of(resumed(run, tmp_path, max_grad_norm=0.5)).show(shown)

    assert "Arguments that differ" in shown.getvalue()
    assert "max_grad_norm" in shown.getvalue()
    assert "step 4 of 10, epoch 0.8, sample 16 of it" in shown.getvalue()


def test_a_run_that_is_the_same_is_told_without_a_warning(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resumed(run, tmp_path, load_best_model_at_end=True, save_strategy="steps")

    told = [record for record in caplog.records if "Resuming from" in record.getMessage()]
    assert [record.levelname for record in told] == ["INFO"]


def test_a_table_of_other_rows_is_told_by_its_fingerprint(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"x": [float(i), 1.0, 2.0], "labels": [float(i)]} for i in range(20)]
    quick(tmp_path, **SAVES, train_dataset=datasets.Dataset.from_list(rows)).train()
    same, other = (datasets.Dataset.from_list(chosen) for chosen in (rows, rows[::-1]))

    def told(data: Any, folder: Path) -> dict[str, str]:
        trainer = quick(folder, **{**SAVES, "save_strategy": "no"}, train_dataset=data)
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
        return verdicts(report_of(trainer))

    assert "train_dataset" not in told(same, tmp_path / "same")
    assert told(other, tmp_path / "other")["train_dataset"] == "changes the mathematics"


def test_another_number_of_processes_is_told(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-4"
    shutil.copytree(run / "checkpoint-4", folder)
    origin = read_origin(folder)
    assert origin is not None
    replace(origin, processes=2).write(folder)
    (folder / "manifest.json").unlink()
    seal(folder, Header(4))
    trainer = quick(tmp_path / "rest", **SAVES)
    trainer.train(resume_from_checkpoint=str(folder))

    assert verdicts(report_of(trainer))["processes"] == "changes the mathematics"


def test_a_best_checkpoint_that_is_gone_is_told_once(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(run / "checkpoint-8", tmp_path / "checkpoint-8")
    path = tmp_path / "checkpoint-8" / "trainer_state.json"
    path.write_text(path.read_text().replace(str(run), str(tmp_path / "gone")))
    (tmp_path / "checkpoint-8" / "manifest.json").unlink()
    seal(tmp_path / "checkpoint-8", Header(8))
    resumed(tmp_path, tmp_path / "rest", step=8)

    assert caplog.text.count("is gone; it is not looked for any more") == 1
