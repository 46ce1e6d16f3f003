"""Which checkpoint a run goes on from, and what of it is put back: the parts of it, each by itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.small import Points, quick

from surestep import EarlyStoppingCallback, ExportableState, Trainer, TrainerCallback, TrainerState
from surestep.errors import CheckpointError
from surestep.trainer.resuming.checkpoint import find_checkpoint, load_state

SAVES = {"save_strategy": "steps", "save_steps": 2, "num_train_epochs": 2}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    quick(tmp_path, **SAVES).train()
    return tmp_path


def damage(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")


# Finding


@pytest.mark.parametrize("asked", [None, False])
def test_nothing_asked_nothing_found(run: Path, asked: Any) -> None:
    assert find_checkpoint(quick(run), asked) is None


def test_the_newest_that_is_valid(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert find_checkpoint(quick(run), True) == str(run / "checkpoint-10")

    damage(run / "checkpoint-10")
    assert find_checkpoint(quick(run), True) == str(run / "checkpoint-8")
    assert "The damaged checkpoint is kept as" in caplog.text
    assert not (run / "checkpoint-10").exists()


def test_nothing_to_resume_from_is_told_and_training_starts_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = quick(tmp_path)
    trainer.train(resume_from_checkpoint=True)

    assert "there is no checkpoint in" in caplog.text
    assert "training starts anew" in caplog.text
    assert trainer.state.global_step == 5


@pytest.mark.parametrize("kind", [str, Path])
def test_a_named_one(run: Path, kind: Any) -> None:
    assert find_checkpoint(quick(run), kind(run / "checkpoint-4")) == str(run / "checkpoint-4")


def test_a_named_one_that_is_missing_or_damaged_is_told(run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint-99', which is no folder\. Name a checkpoint-<step> folder"):
        find_checkpoint(quick(run), str(run / "checkpoint-99"))
    damage(run / "checkpoint-4")
    with pytest.raises(CheckpointError, match=r"checkpoint-4' is damaged: .*resume_from_checkpoint='auto'"):
        find_checkpoint(quick(run), str(run / "checkpoint-4"))


# State


def test_a_checkpoint_without_a_state_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no trainer_state\.json, so nothing says how far it came"):
        load_state(str(tmp_path))


def test_a_best_checkpoint_that_is_gone_is_forgotten(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "here").mkdir()
    for best, kept in ((tmp_path / "here", True), (tmp_path / "gone", False)):
        TrainerState(best_model_checkpoint=str(best), best_metric=0.5).save_to_json(tmp_path / "trainer_state.json")
        state = load_state(str(tmp_path))

        assert state.best_model_checkpoint == (str(best) if kept else None)
        assert state.best_metric == 0.5
    assert caplog.text.count("is gone; it is not looked for any more") == 1


def test_intervals_and_lengths_are_those_of_today(run: Path) -> None:
    trainer = quick(run, num_train_epochs=4, logging_steps=3, save_steps=7)
    trainer.train(resume_from_checkpoint=str(run / "checkpoint-4"))

    assert trainer.state.global_step == trainer.state.max_steps == 20
    assert trainer.state.num_train_epochs == 4
    assert (trainer.state.logging_steps, trainer.state.save_steps) == (3, 7)


# Callbacks


class Counts(TrainerCallback, ExportableState):
    def __init__(self, start: int = 0) -> None:
        self.start, self.seen = start, 0

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seen += 1

    def state(self) -> dict[str, Any]:
        return {"args": {"start": self.start}, "attributes": {"seen": self.seen}}


def resumed(folder: Path, callbacks: list[Any], step: int = 4) -> Trainer:
    trainer = quick(folder, callbacks=callbacks, **{**SAVES, "save_strategy": "no"})
    trainer.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
    return trainer


def test_callbacks_of_one_class_are_restored_in_their_order(tmp_path: Path) -> None:
    quick(tmp_path, callbacks=[Counts(1), Counts(2)], **SAVES).train()
    one, two = Counts(7), Counts(8)
    resumed(tmp_path, [one, two])

    assert [(counts.start, counts.seen) for counts in (one, two)] == [(1, 10), (2, 10)]


def test_a_state_whose_callback_is_missing_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    quick(tmp_path, callbacks=[Counts()], **SAVES).train()
    resumed(tmp_path, [])

    assert "the state of a callback Counts, which this run does not have" in caplog.text


def test_more_callbacks_than_states_begin_anew(tmp_path: Path) -> None:
    quick(tmp_path, callbacks=[Counts()], **SAVES).train()
    one, two = Counts(), Counts()
    resumed(tmp_path, [one, two])

    assert (one.seen, two.seen) == (10, 6)


def test_patience_goes_on_where_it_was(tmp_path: Path) -> None:
    class Worse(Trainer):
        def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
            metrics = {"eval_loss": float(self.state.global_step)}
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
            return metrics

    settings = {
        "eval_dataset": Points(4), "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1,
        "load_best_model_at_end": True, "num_train_epochs": 4,
    }  # fmt: skip
    first = quick(tmp_path, Worse, callbacks=[EarlyStoppingCallback(3)], max_steps=3, **settings)
    first.train()
    second = quick(tmp_path, Worse, callbacks=[EarlyStoppingCallback(3)], **settings)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))

    # Step 1 is the best; steps 2, 3 and 4 were worse.
    assert second.state.global_step == 4


# Progress


def test_batches_of_another_size_are_taken_up_and_told(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = quick(run, per_device_train_batch_size=2, **SAVES)
    trainer.train(resume_from_checkpoint=str(run / "checkpoint-4"))

    # 5 steps an epoch, of which one is left, and 10 of the other size.
    assert trainer.state.global_step == trainer.state.max_steps == 4 + 2 + 10
    assert trainer.state.epoch == 2.0
    assert "with 4 samples a batch, gradient_accumulation_steps=1, 1 process; this run has 2 samples" in caplog.text
    assert "Epoch 0 goes on behind its first 16 samples" in caplog.text
    assert "after step 4 it stands at step 8 of 20, with a learning rate of" in caplog.text


def test_what_a_checkpoint_does_not_hold_is_told(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(run / "checkpoint-4")
    quick(run / "light", save_strategy="steps", save_steps=2, save_only_model=True).train()
    trainer = quick(run / "light")
    trainer.train(resume_from_checkpoint=str(run / "light" / "checkpoint-4"))

    assert (
        "holds no state of the optimizer, the schedule, the random generators: resuming starts that anew" in caplog.text
    )


def test_data_need_not_be_skipped(run: Path) -> None:
    seen: list[int] = []

    class Looks(Trainer):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            seen.append(self.state.global_step)
            return super().training_step(model, inputs, num_items_in_batch)

    quick(run, Looks, ignore_data_skip=True, num_train_epochs=1).train(resume_from_checkpoint=str(run / "checkpoint-4"))

    # The epoch is read from its beginning, until the steps of the plan are done.
    assert seen == [4]


def test_the_state_on_disk_has_the_keys_of_the_original_only(run: Path) -> None:
    import dataclasses

    import transformers

    content = json.loads((run / "checkpoint-4" / "trainer_state.json").read_text())
    assert content.keys() == {field.name for field in dataclasses.fields(transformers.TrainerState)}
