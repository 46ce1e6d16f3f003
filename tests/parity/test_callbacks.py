"""Callbacks: who hears what in which order, and what they can ask for. Stock callbacks on our trainer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import transformers

import surestep
from tests.parity.harness import Case, Seen, as_parameters, assert_same, check, run
from tests.parity.models import Net, Points

BASE = {"per_device_train_batch_size": 4, "num_train_epochs": 3, "logging_steps": 4, "learning_rate": 1e-2}
GROUPED = {**BASE, "gradient_accumulation_steps": 3}
POINTS = {"evaluate": lambda: Points(20, seed=1)}

Handler = Callable[..., Any]


def listening(**handlers: Handler) -> Callable[[Any], list[Any]]:
    """Return what makes, for a side, a callback whose events are `handlers` of (args, state, control, **kwargs)."""

    def make(side: Any) -> list[Any]:
        methods = {
            name: lambda self, args, state, control, _h=handler, **kwargs: _h(args, state, control, **kwargs)
            for name, handler in handlers.items()
        }
        return [type("Listener", (side.TrainerCallback,), methods)()]

    return make


def asking(step: int, **flags: bool) -> Handler:
    """Return a handler that sets flags of the control after a step."""

    def handle(args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if state.global_step == step:
            for name, value in flags.items():
                setattr(control, name, value)
        return control

    return handle


def replacing(step: int) -> Handler:
    """Return a handler that returns a control of its own."""

    def handle(args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        return dataclasses.replace(control, should_log=True) if state.global_step == step else None

    return handle


def shrinking(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
    """Scale the gradients by hand, where the original lets one."""
    for parameter in kwargs["model"].parameters():
        parameter.grad.mul_(0.5)


def freezing(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
    """Freeze a layer after the first epoch."""
    kwargs["model"].first.requires_grad_(state.epoch < 1)


def halving(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
    """Change the rate and the metrics' dictionary from outside."""
    for group in kwargs["optimizer"].param_groups:
        group["lr"] /= 2


def noting(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
    kwargs["logs"]["noted"] = state.global_step


def stops(seen: Seen) -> bool:
    return 0 < seen.state.global_step < 39


def early(side: Any, **settings: Any) -> list[Any]:
    return [side.EarlyStoppingCallback(**settings)]


STOPPING = {**BASE, "eval_strategy": "steps", "eval_steps": 3, "metric_for_best_model": "loss", "learning_rate": 0.3}

CASES = [
    Case("nobody asks", BASE),
    Case("stop after a step", BASE, {"callbacks": listening(on_step_end=asking(5, should_training_stop=True))}, stops),
    Case("stop after an epoch", BASE, {"callbacks": listening(on_epoch_end=asking(13, should_training_stop=True))}),
    Case(
        "stop between micro-batches",
        GROUPED,
        {"callbacks": listening(on_substep_end=asking(6, should_training_stop=True))},
        lambda seen: seen.state.global_step == 6 and len(seen.losses) == 13 + 3 + 1,
    ),
    Case("stop at the beginning of a step", BASE, {"callbacks": listening(on_step_begin=asking(3, should_save=True))}),
    Case("leave an epoch", BASE, {"callbacks": listening(on_step_end=asking(5, should_epoch_stop=True))}, stops),
    Case(
        "stop in an evaluation",
        STOPPING,
        {**POINTS, "callbacks": listening(on_evaluate=asking(6, should_training_stop=True))},
        stops,
    ),
    Case(
        "ask for a log, an evaluation and a checkpoint",
        BASE,
        {
            **POINTS,
            "callbacks": listening(on_step_end=asking(7, should_log=True, should_evaluate=True, should_save=True)),
        },
        lambda seen: seen.files == ["checkpoint-7"] and "eval_loss" in seen.last_logs,
    ),
    Case(
        "ask too late: the next step forgets it",
        {**BASE, "save_strategy": "steps", "save_steps": 5},
        {**POINTS, "callbacks": listening(on_save=asking(5, should_evaluate=True, should_log=True))},
        lambda seen: "eval_loss" not in seen.last_logs and "on_save@5 (log, evaluate)" not in seen.events,
    ),
    Case(
        "take a request back",
        BASE,
        {"callbacks": listening(on_step_end=asking(8, should_log=False))},
        lambda seen: 8 not in [entry["step"] for entry in seen.logs],
    ),
    Case(
        "return another control",
        BASE,
        {"callbacks": listening(on_step_end=replacing(7))},
        lambda seen: 7 in [entry["step"] for entry in seen.logs],
    ),
    Case("change gradients before the step", BASE, {"callbacks": listening(on_pre_optimizer_step=shrinking)}),
    Case("freeze a layer on the way", BASE, {"callbacks": listening(on_epoch_begin=freezing)}),
    Case(
        "change the rate on the way",
        {**BASE, "lr_scheduler_type": "constant"},
        {"callbacks": listening(on_epoch_end=halving)},
    ),
    Case("add to a log", BASE, {"callbacks": listening(on_log=noting)}),
    Case(
        "early stopping", STOPPING, {**POINTS, "callbacks": lambda side: early(side, early_stopping_patience=2)}, stops
    ),
    Case(
        "early stopping by a threshold, with the best at the end",
        {**STOPPING, "save_strategy": "steps", "save_steps": 3, "load_best_model_at_end": True},
        {**POINTS, "callbacks": lambda side: early(side, early_stopping_patience=2, early_stopping_threshold=0.05)},
        stops,
    ),
    Case(
        "early stopping with a patience that lasts",
        {**STOPPING, "learning_rate": 1e-3},
        {**POINTS, "callbacks": lambda side: early(side, early_stopping_patience=50)},
    ),
]

SEQUENCES: dict[str, Callable[[Any], Any]] = {
    "train twice": lambda trainer: [trainer.train(), trainer.train()],
    "train after evaluate": lambda trainer: [trainer.evaluate(), trainer.train()],
    "train, change the arguments, train": lambda trainer: [
        trainer.train(),
        setattr(trainer.args, "learning_rate", 1e-3),
        setattr(trainer.args, "max_steps", 7),
        trainer.train(),
    ],
    "train, predict, train": lambda trainer: [
        trainer.train(),
        trainer.predict(trainer.eval_dataset).predictions,
        trainer.train(),
    ],
}


@as_parameters(CASES)
def test_callbacks_work_as_the_originals(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("name", SEQUENCES)
def test_one_trainer_used_several_times(name: str) -> None:
    check(Case(name, {**BASE, "save_strategy": "epoch"}, {**POINTS, "drive": SEQUENCES[name]}))


def test_a_model_made_anew_for_each_training() -> None:
    drive = SEQUENCES["train twice"]
    theirs, _ = check(Case("made anew", BASE, {"model_init": lambda: Net(0.2), "drive": drive}))
    first, second = theirs.output
    assert first.training_loss == second.training_loss


def test_stock_callbacks_on_our_trainer() -> None:
    heard: list[str] = []

    class Stock(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            heard.append(f"{state.global_step} of {args.learning_rate}")

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> Any:
            control.should_training_stop = state.global_step >= 8
            return control

    arguments = {**STOPPING, "logging_steps": 4}
    stock = lambda side: [Stock, transformers.EarlyStoppingCallback(9), transformers.PrinterCallback]  # noqa: E731
    theirs = run(transformers, arguments, callbacks=stock, **POINTS)
    one, heard[:] = list(heard), []
    ours = run(surestep, arguments, callbacks=stock, **POINTS)
    assert heard == one
    assert len(one) == 8
    assert_same(theirs, ours)
