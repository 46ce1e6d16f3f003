"""What a trial is, whoever draws its values: its arguments, its seed, its folder, and nothing of the trial before."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from tests.small import Line, Points, quick
from tests.unit.trainer.search.small_search import rates, searching, seeded
from torch import nn

from surestep import EarlyStoppingCallback, Trainer, TrainerCallback
from surestep.errors import ArgumentError, ModelError, NotServedError
from surestep.runtime.world import World
from surestep.trainer.search.backend import backend_class
from surestep.trainer.search.search import Search


def losses(trainer: Trainer) -> list[float]:
    return [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]


# Each trial by itself


@pytest.mark.parametrize("values", [{"seed": 7}, {"seed": 7, "per_device_train_batch_size": 5, "weight_decay": 0.1}])
def test_a_trial_is_a_plain_run_with_its_arguments(tmp_path: Path, values: dict[str, Any]) -> None:
    seen: list[list[float]] = []

    def space(trial: Any) -> dict[str, Any]:
        return rates(trial) | (values if trial.number == 1 else {})

    class Notes(Trainer):
        def _finalize_training(self, *positional: Any) -> Any:
            seen.append(losses(self))
            return super()._finalize_training(*positional)

    dropping = {"model_init": _Dropping}
    trainer = searching(tmp_path / "search", Notes, **dropping)
    best = trainer.hyperparameter_search(space, n_trials=2, sampler=seeded())
    trials = best.run_summary.trials

    for trial, extra in zip(trials, [{}, values], strict=True):
        plain = searching(tmp_path / "plain", **dropping, **trial.params, **extra)
        plain.train()
        assert losses(plain) == seen[trial.number]
        assert trial.value == losses(plain)[-1]
    assert seen[0] != seen[1]


class _Dropping(Line):
    """Draws from the random generators in every forward."""

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        return super().forward(nn.functional.dropout(x, 0.3, self.training), labels)


def test_values_of_one_trial_do_not_reach_the_next(tmp_path: Path) -> None:
    seen: list[tuple[float, int]] = []

    class Notes(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append((args.weight_decay, state.train_batch_size))

    def space(trial: Any) -> dict[str, Any]:
        return {"weight_decay": 0.5, "per_device_train_batch_size": 2} if trial.number == 0 else {}

    trainer = searching(tmp_path, callbacks=[Notes()])
    trainer.hyperparameter_search(space, n_trials=2)

    assert seen == [(0.5, 2), (0.0, 4)]


def test_a_callback_with_a_memory_begins_each_trial_without_it(tmp_path: Path) -> None:
    stopping = EarlyStoppingCallback(early_stopping_patience=9)
    counts: list[int] = []

    class Notes(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            counts.append(stopping.early_stopping_patience_counter)

    settings = {"metric_for_best_model": "score", "load_best_model_at_end": True, "save_strategy": "epoch"}
    # A score that never grows: every evaluation but the first counts.
    score = {"compute_metrics": lambda prediction: {"score": 0.5}}
    trainer = searching(tmp_path, callbacks=[stopping, Notes()], **score, **settings)
    trainer.hyperparameter_search(lambda trial: {"seed": trial.number + 1}, n_trials=2)

    assert counts == [0, 0]


def test_the_arguments_are_those_of_before_afterwards(tmp_path: Path) -> None:
    trainer = searching(tmp_path, lr_scheduler_kwargs={})
    before, given = trainer.args.to_dict(), trainer.args._given
    args = trainer.args
    trainer.hyperparameter_search(lambda trial: {"seed": 5, "num_train_epochs": 1, "bf16": True}, n_trials=1)

    assert trainer.args is args
    assert args.to_dict() == before
    assert args._given == given
    assert trainer.engine.precision.name == "no"
    assert trainer.hp_search_backend is None


def test_afterwards_training_takes_the_values_set_on_the_arguments(tmp_path: Path) -> None:
    trainer = searching(tmp_path)
    best = trainer.hyperparameter_search(
        lambda trial: {"per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", [10])},
        n_trials=1,
    )
    for name, value in best.hyperparameters.items():
        setattr(trainer.args, name, value)
    trainer.train()

    assert trainer.state.max_steps == 4
    assert losses(trainer)[-1] == best.objective
    assert not trainer.state.is_hyper_param_search


def test_a_batch_size_that_was_found_stays(tmp_path: Path) -> None:
    trainer = searching(tmp_path)
    trainer._train_batch_size = 2
    trainer.train()

    assert trainer.state.max_steps == 20


# Memory


def live(kind: type) -> int:
    gc.collect()
    return sum(issubclass(type(item), kind) for item in gc.get_objects())


@pytest.mark.parametrize("end", ["completed", "pruned", "failed"])
def test_nothing_of_the_trial_before_is_alive_when_the_next_begins(tmp_path: Path, end: str) -> None:
    born: list[weakref.ref[Any]] = []
    alive: list[int] = []

    class Own(Line):
        pass

    class Adam(torch.optim.AdamW):
        pass

    def make() -> nn.Module:
        # No collection here: what is to be gone must be gone without the test's help.
        alive.append(sum(ref() is not None for ref in born))
        model = Own()
        born.extend([weakref.ref(model), *(weakref.ref(weight) for weight in model.parameters())])
        return model

    class Notes(TrainerCallback):
        def on_pre_optimizer_step(self, *_: Any, model: Any, optimizer: Any, **__: Any) -> None:
            born.extend(weakref.ref(weight.grad) for weight in model.parameters())
            born.append(weakref.ref(optimizer))

        def on_evaluate(self, *_: Any, optimizer: Any, train_dataloader: Any, **__: Any) -> None:
            born.append(weakref.ref(train_dataloader))
            born.extend(weakref.ref(value["exp_avg"]) for value in optimizer.state.values())
            if end == "failed":
                raise torch.OutOfMemoryError("no memory")

    trainer = searching(tmp_path, model_init=make, callbacks=[Notes()], optimizer_cls_and_kwargs=(Adam, {"lr": 0.1}))
    pruner = optuna.pruners.ThresholdPruner(upper=-1.0) if end == "pruned" else None
    gc.disable()
    try:
        with pytest.raises(Exception, match="No trial") if end != "completed" else _nothing():
            trainer.hyperparameter_search(
                lambda trial: {"seed": trial.number + 1}, n_trials=3, pruner=pruner, catch=(torch.OutOfMemoryError,)
            )
    finally:
        gc.enable()

    assert len(born) > 60
    assert alive == [0, 0, 0, 0]
    assert live(Own) == live(Adam) == 0


class _nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: Any) -> None: ...


@pytest.mark.parametrize("use", ["evaluate", "save_model", "predict"])
def test_a_trainer_without_a_model_says_so(tmp_path: Path, use: str) -> None:
    trainer = searching(tmp_path)
    trainer.hyperparameter_search(rates, n_trials=1)

    assert trainer.model is None
    with pytest.raises(ModelError, match=r"The trainer has no model: the search.*Call train\(\)"):
        getattr(trainer, use)(*([Points(4)] if use == "predict" else []))


# Names and folders


def test_each_trial_has_its_folder_with_its_checkpoints_and_its_log(tmp_path: Path) -> None:
    trainer = searching(tmp_path, save_strategy="epoch", save_total_limit=1, load_best_model_at_end=True)
    trainer.hyperparameter_search(rates, n_trials=2, sampler=seeded())

    for number in (0, 1):
        folder = tmp_path / f"run-{number}"
        assert (folder / "checkpoint-10").is_dir()
        assert (folder / "train_log.jsonl").is_file()
        state = json.loads((folder / "checkpoint-10" / "trainer_state.json").read_text())
        assert state["is_hyper_param_search"]
        assert state["trial_name"] == f"run-{number}"
        assert state["trial_params"].keys() == {"learning_rate"}
        assert Path(state["best_model_checkpoint"]).parent == folder
    assert not list(tmp_path.glob("checkpoint-*"))


def test_trials_are_named_by_hp_name(tmp_path: Path) -> None:
    names: list[str | None] = []

    class Notes(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            names.append(state.trial_name)

    trainer = searching(tmp_path, callbacks=[Notes()], save_strategy="epoch")
    trainer.hyperparameter_search(
        rates, n_trials=1, hp_name=lambda trial: f"rate-{trial.params['learning_rate']:.4f}", sampler=seeded()
    )

    assert names[0] is not None
    assert names[0].startswith("rate-0.0")
    assert (tmp_path / names[0] / "checkpoint-5").is_dir()
    assert trainer._get_output_dir(None) == str(tmp_path)


def test_a_trial_outside_a_search_is_noted_and_changes_nothing(tmp_path: Path) -> None:
    trainer = searching(tmp_path, save_strategy="epoch")
    trainer.train(trial={"learning_rate": 3.0})

    assert trainer.args.learning_rate == 0.01
    assert trainer.state.trial_params == {"learning_rate": 3.0}
    assert (tmp_path / "checkpoint-10").is_dir()


def test_the_steps_of_a_trial_may_be_taken_by_hand(tmp_path: Path) -> None:
    seen: list[float] = []

    class ByHand(Trainer):
        def train(self, resume_from_checkpoint: Any = None, trial: Any = None, **_: Any) -> Any:
            with self.steps(trial=trial) as steps:
                seen.extend(self.args.learning_rate for _ in steps)

    searching(tmp_path, ByHand).hyperparameter_search(lambda trial: {"learning_rate": 0.5}, n_trials=1)

    assert seen == [0.5] * 10


# The objective


def test_without_evaluation_in_training_there_is_one_at_the_end(tmp_path: Path) -> None:
    trainer = searching(tmp_path, eval_strategy="no")
    best = trainer.hyperparameter_search(rates, n_trials=2, sampler=seeded())
    plain = searching(tmp_path, eval_strategy="no", **best.hyperparameters)
    plain.train()

    assert best.objective == plain.evaluate()["eval_loss"]


def test_the_objective_is_there_for_those_who_ask(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Reads(Trainer):
        def _report_to_hp_search(self, trial: Any, step: int, metrics: dict[str, float]) -> None:
            super()._report_to_hp_search(trial, step, metrics)
            seen.append((step, self.objective == metrics["eval_loss"], str(self.hp_search_backend), self.hp_name))

    trainer = searching(tmp_path, Reads)
    trainer.hyperparameter_search(rates, n_trials=1)

    assert [entry[:2] for entry in seen] == [(5, True), (10, True)]
    assert trainer.objective is None
    assert trainer.hp_name is None


@pytest.mark.parametrize(
    ("value", "direction", "message"),
    [
        (None, "minimize", r"compute_objective returned None, which is no number"),
        ([1.0, 2.0], "minimize", r"returned \[1.0, 2.0\], which is no number.*a list as direction"),
        (1.0, ["minimize", "maximize"], r"direction has 2 entries, and compute_objective returned 1.0"),
        ([1.0, "x"], ["minimize", "maximize"], r"returned 'x', which is no number"),
    ],
)
def test_an_objective_that_is_none_ends_the_search(tmp_path: Path, value: Any, direction: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        searching(tmp_path).hyperparameter_search(rates, lambda metrics: value, direction=direction)


# What cannot be right


def test_a_model_alone_cannot_be_searched_with(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"has one model. Pass Trainer\(model_init=\.\.\.\)"):
        quick(tmp_path).hyperparameter_search(backend="optuna")


@pytest.mark.parametrize("backend", ["ray", "wandb"])
def test_several_processes_of_one_run_are_for_optuna(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    trainer = searching(tmp_path)
    monkeypatch.setattr(trainer, "_world", World(size=2))
    monkeypatch.setattr(backend_class(backend), "ensure_available", lambda: None)
    with pytest.raises(NotServedError, match=rf'backend="{backend}"\) runs in one process, and this run has 2.*optuna'):
        trainer.hyperparameter_search(backend=backend)


def test_deepspeed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = searching(tmp_path)
    monkeypatch.setattr(type(trainer), "is_deepspeed_enabled", True)
    with pytest.raises(NotServedError, match="does not run under DeepSpeed"):
        trainer.hyperparameter_search(backend="optuna")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"n_trials": 0}, ArgumentError, "n_trials is 0. Write how many trials to run"),
        ({"n_trials": True}, ArgumentError, "n_trials is True"),
        ({"direction": "minimise"}, ArgumentError, "direction is 'minimise'.*Did you mean 'minimize'"),
        ({"direction": []}, ArgumentError, "direction is an empty list"),
        ({"backend": "optunas"}, ArgumentError, "not a valid HPSearchBackend.*Did you mean 'optuna'"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_trial(
    tmp_path: Path, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    trainer = searching(tmp_path)
    with pytest.raises(error, match=message):
        trainer.hyperparameter_search(**{"backend": "optuna", **settings})
    assert trainer.model is not None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": -1.0}, "learning_rate.*at least 0"),
        ({"learning_rte": 0.1}, "names 'learning_rte'.*Did you mean learning_rate"),
        ({"save_strategy": "best"}, "metric_for_best_model"),
        (None, "hp_space returned None. Return a dict of arguments"),
    ],
)
def test_arguments_of_a_trial_are_checked_as_at_construction(tmp_path: Path, values: Any, message: str) -> None:
    trainer = searching(tmp_path)
    with pytest.raises(ArgumentError, match=message):
        trainer.hyperparameter_search(lambda trial: values, n_trials=1)
    assert trainer.args.learning_rate == 0.01
    trainer.train()
    assert trainer.state.global_step == 10


def test_a_second_search_begins_like_the_first(tmp_path: Path) -> None:
    trainer = searching(tmp_path)
    first, second = (trainer.hyperparameter_search(rates, n_trials=2, sampler=seeded()) for _ in range(2))

    assert first[:3] == second[:3]


def test_a_search_is_gone_with_the_call(tmp_path: Path) -> None:
    trainer = searching(tmp_path)
    trainer.hyperparameter_search(rates, n_trials=1)

    assert live(Search) == 0


# The function that makes the model


def by_keyword(*, layer: type[nn.Linear] = nn.Linear, **settings: Any) -> nn.Module:
    assert not settings
    model = Line()
    model.layer = layer(3, 1)
    return model


@pytest.mark.parametrize("make", [Line, by_keyword])
def test_a_function_without_positional_arguments_is_called_with_nothing(tmp_path: Path, make: Any) -> None:
    assert searching(tmp_path, model_init=make).hyperparameter_search(rates, n_trials=1).run_id == "0"


def test_a_function_of_the_trial_may_draw_from_it(tmp_path: Path) -> None:
    class Wide(Line):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.layer = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 1))

    def make(trial: Any) -> nn.Module:
        return Wide(2 if trial is None else trial.suggest_int("width", 3, 9))

    best = searching(tmp_path, model_init=make).hyperparameter_search(rates, n_trials=2, sampler=seeded())
    assert best.hyperparameters.keys() == {"learning_rate", "width"}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda one, two: Line(), ArgumentError, "model_init takes 2 arguments"),
        (lambda: None, ModelError, "model_init returned None. Return the model"),
    ],
)
def test_a_function_that_makes_no_model(tmp_path: Path, make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        searching(tmp_path, model_init=make)
