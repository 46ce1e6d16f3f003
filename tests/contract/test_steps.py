"""The loop in the user's own hands: `with trainer.steps() as steps`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from surestep import Trainer, TrainerCallback
from tests.small import Points, line, quick
from tests.warm import server


def leave_by_an_error(trainer: Trainer) -> None:
    with trainer.steps() as steps:
        next(steps)
        raise KeyError("mine")


class Ends(TrainerCallback):
    def __init__(self) -> None:
        self.ended: list[int] = []

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.ended.append(state.global_step)


def test_every_step_is_given_with_its_state(tmp_path: Path) -> None:
    trainer, seen = quick(tmp_path, num_train_epochs=2, logging_steps=1), []
    with trainer.steps() as steps:
        for state in steps:
            # Logged already.
            seen.append((state.global_step, state.epoch, state.log_history[-1]["step"]))

    assert seen == [(step, step / 5, step) for step in range(1, 11)]
    assert state is trainer.state


def test_it_comes_to_what_train_comes_to(tmp_path: Path) -> None:
    one, other = quick(tmp_path / "one"), quick(tmp_path / "other")
    output = one.train()
    with other.steps() as steps:
        for _ in steps:
            pass

    assert torch.equal(one.model.layer.weight, other.model.layer.weight)
    assert other.train_output is not None
    assert other.train_output.training_loss == output.training_loss
    assert other.train_output.metrics.keys() == output.metrics.keys()


def test_leaving_early_ends_as_training_ends(tmp_path: Path) -> None:
    ends = Ends()
    trainer = quick(tmp_path, callbacks=[ends])
    with trainer.steps() as steps:
        for state in steps:
            if state.global_step == 2:
                break

    assert ends.ended == [2]
    assert trainer.train_output is not None
    assert trainer.train_output.global_step == 2
    assert trainer.state.log_history[-1].keys() >= {"train_runtime", "train_loss"}
    assert not trainer.is_in_train


def test_one_step_at_a_time(tmp_path: Path) -> None:
    trainer = quick(tmp_path)
    with trainer.steps() as steps:
        assert next(steps).global_step == 1
        first = trainer.model.layer.weight.detach().clone()
        assert next(steps).global_step == 2
        assert not torch.equal(first, trainer.model.layer.weight)

    assert trainer.train_output.global_step == 2


def test_not_a_single_step(tmp_path: Path) -> None:
    trainer = quick(tmp_path)
    before = trainer.model.layer.weight.detach().clone()
    with trainer.steps():
        pass

    assert torch.equal(before, trainer.model.layer.weight)
    assert trainer.train_output.global_step == 0
    assert trainer.train_output.training_loss == 0.0


def test_an_exception_in_the_body_reaches_the_caller_and_nothing_is_ended(tmp_path: Path) -> None:
    ends = Ends()
    trainer = quick(tmp_path, callbacks=[ends], bf16=True)
    with pytest.raises(KeyError, match="mine"):
        leave_by_an_error(trainer)

    assert ends.ended == []
    assert trainer.train_output is None
    assert not trainer.is_in_train
    # The model is the user's again: nothing is left around its forward.
    assert "forward" not in vars(trainer.model)


def test_no_autocast_is_held_while_the_body_runs(tmp_path: Path) -> None:
    with quick(tmp_path, bf16=True).steps() as steps:
        for _ in steps:
            assert not torch.is_autocast_enabled("cpu")
            assert torch.is_grad_enabled()


def test_a_second_use_is_a_second_run(tmp_path: Path) -> None:
    trainer, counts = quick(tmp_path), []
    for _ in range(2):
        with trainer.steps() as steps:
            counts.append(sum(1 for _ in steps))

    assert counts == [5, 5]
    assert trainer.state.global_step == 5


def test_after_an_exception_it_can_be_used_again(tmp_path: Path) -> None:
    trainer = quick(tmp_path, save_strategy="steps", save_steps=1)
    with pytest.raises(KeyError):
        leave_by_an_error(trainer)
    with trainer.steps() as steps:
        assert sum(1 for _ in steps) == 5


def test_the_output_folder_is_free_again_after_a_run_and_after_an_error(tmp_path: Path) -> None:
    trainer = quick(tmp_path, save_strategy="epoch")
    trainer.train()
    with pytest.raises(KeyError):
        leave_by_an_error(trainer)
    program = f"from tests.small import quick; quick({str(tmp_path)!r}, save_strategy='epoch').train()"

    # Another process may write there now.
    assert server().run(["-c", program], cwd=Path(__file__).parents[2]).returncode == 0


def test_a_run_left_early_is_resumed_where_it_was_left(tmp_path: Path) -> None:
    whole = quick(tmp_path / "whole", num_train_epochs=2)
    whole.train()
    settings = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 1}
    with quick(tmp_path / "parts", **settings).steps() as steps:
        for state in steps:
            if state.global_step == 3:
                break
    rest = quick(tmp_path / "parts", **settings)
    with rest.steps(resume_from_checkpoint=True) as steps:
        assert [state.global_step for state in steps] == [4, 5, 6, 7, 8, 9, 10]

    assert torch.equal(whole.model.layer.weight, rest.model.layer.weight)


def test_requests_of_the_body_are_served_with_the_next_step(tmp_path: Path) -> None:
    trainer = quick(tmp_path)
    with trainer.steps() as steps:
        for state in steps:
            if state.global_step == 2:
                trainer.control.should_training_stop = True

    assert trainer.state.global_step == 2


def test_the_body_may_evaluate_and_save(tmp_path: Path) -> None:
    plain, trainer = quick(tmp_path / "plain"), quick(tmp_path / "looked", eval_dataset=Points(8))
    plain.train()
    losses = []
    with trainer.steps() as steps:
        for _ in steps:
            losses.append(trainer.evaluate()["eval_loss"])
            trainer.save_model(str(tmp_path / "saved"))

    assert len(set(losses)) == 5
    assert torch.equal(plain.model.layer.weight, trainer.model.layer.weight)
    assert (tmp_path / "saved" / "model.safetensors").exists()


def test_an_error_before_the_first_step_leaves_the_trainer_usable(tmp_path: Path) -> None:
    class Breaks(Trainer):
        broken = True

        def get_train_dataloader(self) -> Any:
            if self.broken:
                raise KeyError("mine")
            return super().get_train_dataloader()

    trainer = quick(tmp_path, Breaks, model=line(), save_strategy="epoch")
    with pytest.raises(KeyError, match="mine"):
        trainer.train()
    assert not trainer.is_in_train

    trainer.broken = False
    assert trainer.train().global_step == 5
