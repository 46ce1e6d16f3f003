"""Every override point is called, as often and with the same arguments as the original calls it.

A subclass overrides all of them at once; each notes its call and hands over to `super()`. The run: 20 samples in
micro-batches of 4, two to a step, so three steps an epoch, two epochs; a log every second step; each epoch ends with
an evaluation of one batch and a checkpoint; the best model is loaded. Then an evaluation and a prediction.
"""

from __future__ import annotations

import contextlib
import inspect
import io
from collections import Counter
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers

import surestep
from tests.small import Points, line

# How often each is called in training, and then in the evaluation and the prediction, worked out by hand.
CALLS: dict[str, tuple[int, int]] = {
    # Once for each micro-batch: 5 an epoch. Evaluation adds one batch an epoch.
    "training_step": (10, 0),
    "compute_loss": (12, 2),
    "compute_loss_context_manager": (12, 2),
    "autocast_smart_context_manager": (12, 2),
    "_prepare_inputs": (12, 2),
    "floating_point_ops": (10, 0),
    "_track_num_input_tokens": (10, 0),
    # Once a step, and for each batch of an evaluation.
    "get_batch_samples": (6, 0),
    "_get_num_items_in_batch": (8, 2),
    # Once a step and at the end of each epoch.
    "_maybe_log_save_evaluate": (8, 0),
    # Steps 2, 4 and 6, two evaluations, the summary.
    "log": (6, 1),
    "store_flos": (6, 0),
    # Once a run.
    "_hp_search_setup": (1, 0),
    "_inner_training_loop": (1, 0),
    "get_train_dataloader": (1, 0),
    "_get_train_sampler": (1, 0),
    "set_initial_training_values": (1, 0),
    "get_total_train_batch_size": (1, 0),
    "create_optimizer": (1, 0),
    "create_scheduler": (1, 0),
    "get_decay_parameter_names": (1, 0),
    "get_optimizer_cls_and_kwargs": (1, 0),
    "_finalize_training": (1, 0),
    "_load_best_model": (1, 0),
    # Once an epoch.
    "_evaluate": (2, 0),
    "_report_to_hp_search": (2, 0),
    "evaluate": (2, 1),
    "get_eval_dataloader": (2, 1),
    "_determine_best_metric": (2, 0),
    "_save_checkpoint": (2, 0),
    "save_model": (2, 0),
    "_save": (2, 0),
    "_save_optimizer_and_scheduler": (2, 0),
    "_save_scaler": (2, 0),
    "_save_rng_state": (2, 0),
    # Two evaluations in training, one evaluation and one prediction after it.
    "evaluation_loop": (2, 2),
    "prediction_step": (2, 2),
    "_get_eval_sampler": (2, 2),
    "predict": (0, 1),
    "get_test_dataloader": (0, 1),
    # Once for each loader.
    "_get_dataloader": (3, 2),
    "_get_collator_with_removed_columns": (3, 2),
    "_set_signature_columns_if_needed": (3, 2),
    # In the constructor.
    "create_accelerator_and_postprocess": (1, 0),
    "_move_model_to_device": (1, 0),
}
# What the original calls more often, or not at all, with the reason.
ELSEWHERE = {
    "create_optimizer_and_scheduler": (1, 0),  # the original makes the two without it
    "_load_from_checkpoint": (1, 0),  # the best model is loaded by it; the original repeats it inside _load_best_model
    "_prepare_input": (12, 2),  # once a batch; the original once more for each leaf
    "_get_output_dir": (2, 0),  # once a checkpoint; the original asks again before removing old ones
    "num_examples": (1, 0),  # once a run; the original asks for it again for its log
}
# What is called by another way of passing the same arguments.
PASSED_OTHERWISE = {"prediction_step", "create_scheduler", "_get_dataloader"}


def noting(kind: Any, notes: list[tuple[str, int, tuple[str, ...]]]) -> Any:
    """A subclass that overrides every point."""

    def method(name: str) -> Any:
        base = getattr(kind, name)
        static = isinstance(inspect.getattr_static(kind, name), staticmethod)

        def override(self: Any, *args: Any, **kwargs: Any) -> Any:
            notes.append((name, len(args), tuple(sorted(kwargs))))
            return base(*args, **kwargs) if static else base(self, *args, **kwargs)

        return override

    return type("Noting", (kind,), {name: method(name) for name in [*CALLS, *ELSEWHERE]})


def settings(folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 2,
        "learning_rate": 0.01,
        "logging_steps": 2,
        "save_strategy": "epoch",
        "eval_strategy": "epoch",
        "load_best_model_at_end": True,
    }


@cache
def noted(side: ModuleType, overriding: bool = True) -> tuple[list[Any], list[Any], dict[str, torch.Tensor]]:
    """Return the calls in training, those after it, and the weights."""
    notes: list[Any] = []
    kind = noting(side.Trainer, notes) if overriding else side.Trainer
    with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer = kind(
            model=line(),
            args=side.TrainingArguments(**settings(folder)),
            train_dataset=Points(),
            eval_dataset=Points(8),
            compute_metrics=lambda prediction: {"count": float(len(prediction.predictions))},
        )
        trainer.train()
        training = notes.copy()
        notes.clear()
        trainer.evaluate()
        trainer.predict(Points(8))
    return training, notes, trainer.model.state_dict()


@pytest.mark.parametrize("name", [*CALLS, *ELSEWHERE])
def test_an_override_is_called_as_often_as_it_should_be(name: str) -> None:
    training, after, _ = noted(surestep)
    counted = tuple(sum(note[0] == name for note in notes) for notes in (training, after))

    assert counted == {**CALLS, **ELSEWHERE}[name]


@pytest.mark.parametrize("name", CALLS)
def test_the_original_calls_it_as_often_and_with_the_same_arguments(name: str) -> None:
    for ours, theirs in zip(noted(surestep)[:2], noted(transformers)[:2], strict=True):
        one, other = (Counter(note[1:] for note in notes if note[0] == name) for notes in (ours, theirs))
        if name in PASSED_OTHERWISE:
            assert one.total() == other.total()
        else:
            assert one == other


def test_handing_over_to_super_changes_nothing() -> None:
    plain, overridden = noted(surestep, overriding=False)[2], noted(surestep)[2]

    assert all(torch.equal(plain[name], overridden[name]) for name in plain)


def test_the_weights_are_those_of_the_original() -> None:
    theirs, ours = noted(transformers)[2], noted(surestep)[2]

    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_a_resumed_run_calls_what_loads(tmp_path: Path) -> None:
    notes: list[Any] = []
    more = ("_load_from_checkpoint", "_load_optimizer_and_scheduler", "_load_scaler", "_load_rng_state")

    def method(name: str) -> Any:
        def override(self: Any, *args: Any, **kwargs: Any) -> Any:
            notes.append((name, args))
            return getattr(surestep.Trainer, name)(self, *args, **kwargs)

        return override

    kind = type("Loading", (surestep.Trainer,), {name: method(name) for name in more})
    for resume in (None, str(tmp_path / "checkpoint-3")):
        arguments = {**settings(str(tmp_path)), "load_best_model_at_end": False}
        trainer = kind(
            model=line(), args=surestep.TrainingArguments(**arguments), train_dataset=Points(), eval_dataset=Points(8)
        )
        trainer.train(resume_from_checkpoint=resume)
        if resume is None:
            assert notes == []

    assert [name for name, _ in notes] == list(more)
    assert {args[0] for _, args in notes} == {str(tmp_path / "checkpoint-3")}
