"""The loop, driven by a trainer of a few lines through the protocols: no arguments, no model, no tensors."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from surestep.data.position import DataPosition
from surestep.training import loop
from surestep.training.callback import EVENTS, TrainerCallback
from surestep.training.events import Events
from surestep.training.loop import training_loop
from surestep.training.plan import Plan
from surestep.training.run import Run
from surestep.training.state import TrainerControl, TrainerState
from surestep.training.tally import Tally


class Six:
    """All that the loop asks of a trainer."""

    args = None
    current_gradient_accumulation_steps = 1

    def __init__(self) -> None:
        self.state, self.control, self.done = TrainerState(), TrainerControl(), []

    def get_batch_samples(self, batches: Iterator[Any], num_batches: int, device: Any) -> tuple[list[Any], None]:
        return list(islice(batches, num_batches)), None

    def serve_start(self, run: Run) -> None:
        self.done.append("start")

    def serve_requests(self, run: Run) -> None:
        self.done.append("requests")


class Engine:
    """Notes what it is asked to do; breaks a step off where a callback asks for it."""

    device, model, ranks = torch.device("cpu"), None, 1

    def __init__(self, done: list[Any]) -> None:
        self.done = done

    def forward_backward(self, trainer: Any, group: Any, tally: Any, events: Events) -> bool:
        self.done.append(("forward_backward", *group[0]))
        for _ in group[0][1:]:
            events.fire("on_substep_end")
            if trainer.control.should_training_stop or trainer.control.should_epoch_stop:
                return False
        return True

    def apply(self, tally: Any, events: Events) -> bool:
        self.done.append("apply")
        return True

    def settle(self) -> bool:
        return True


def make(*callbacks: Any, batches: int = 3, accumulation: int = 2, epochs: float = 1.0) -> tuple[Any, Run]:
    trainer = Six()
    names = [name for name in EVENTS if name != "on_init_end"]
    listen = {name: lambda self, *_, _name=name, **__: trainer.done.append(_name) for name in names}
    everything = type("Everything", (TrainerCallback,), listen)
    plan = Plan.make(
        batches=batches,
        examples=batches,
        accumulation=accumulation,
        total_batch_size=accumulation,
        num_train_epochs=epochs,
        max_steps=-1,
    )
    run = Run(
        trainer=trainer,
        plan=plan,
        engine=Engine(trainer.done),
        events=Events(trainer, [everything(), *callbacks], model=None, processing_class=None),
        tally=Tally(Engine.device),
        position=DataPosition(),
        read=lambda position: iter(range(batches)),
    )
    return trainer, run


def asking(event: str, flag: str, at: int = 0) -> TrainerCallback:
    """A callback that sets a flag on an event of a step."""

    def method(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= at:
            setattr(control, flag, True)

    return type("Asking", (TrainerCallback,), {event: method})()


def test_the_page_step_by_step() -> None:
    trainer, run = make()
    states = list(training_loop(trainer, run))

    assert trainer.done == [
        "on_train_begin",
        "start",
        "on_epoch_begin",
        "on_step_begin",
        ("forward_backward", 0, 1),
        "on_substep_end",
        "apply",
        "on_step_end",
        "requests",
        "on_step_begin",
        ("forward_backward", 2),
        "apply",
        "on_step_end",
        "requests",
        "on_epoch_end",
        "requests",
    ]
    assert states == [trainer.state] * 2
    assert trainer.state.global_step == 2


def test_the_state_is_given_after_each_step() -> None:
    trainer, run = make(epochs=2.0)

    assert [state.global_step for state in training_loop(trainer, run)] == [1, 2, 3, 4]


def test_an_epoch_is_left_and_the_next_begins() -> None:
    trainer, run = make(asking("on_step_end", "should_epoch_stop"), epochs=2.0)

    assert [state.epoch for state in training_loop(trainer, run)] == [2 / 3, 1 + 2 / 3]
    assert trainer.done.count("on_epoch_end") == 2


def test_training_is_left_after_the_end_of_the_epoch_was_served() -> None:
    trainer, run = make(asking("on_step_end", "should_training_stop"), epochs=2.0)
    list(training_loop(trainer, run))

    assert trainer.state.global_step == 1
    assert trainer.done[-3:] == ["requests", "on_epoch_end", "requests"]
    assert trainer.done.count("on_epoch_begin") == 1


def test_a_stop_asked_for_at_the_end_of_an_epoch_is_served() -> None:
    trainer, run = make(asking("on_epoch_end", "should_training_stop"), epochs=3.0)
    list(training_loop(trainer, run))

    assert trainer.done.count("on_epoch_begin") == 1
    assert trainer.state.global_step == 2


def test_a_step_broken_off_is_not_counted_and_not_applied() -> None:
    trainer, run = make(asking("on_substep_end", "should_training_stop"))

    assert list(training_loop(trainer, run)) == []
    assert "apply" not in trainer.done
    assert "on_step_end" not in trainer.done
    assert trainer.state.global_step == 0
    assert trainer.done[-2:] == ["on_epoch_end", "requests"]


def test_a_stop_from_before_is_forgotten_at_the_beginning() -> None:
    trainer, run = make()
    trainer.control.should_training_stop = True

    assert len(list(training_loop(trainer, run))) == 2


def test_a_run_with_nothing_left_begins_and_does_no_step() -> None:
    trainer, run = make()
    trainer.state.global_step = 2

    assert list(training_loop(trainer, run)) == []
    assert trainer.done == ["on_train_begin", "start"]


def test_leaving_the_generator_runs_nothing_more() -> None:
    trainer, run = make(epochs=5.0)
    steps = training_loop(trainer, run)
    next(steps)
    before = list(trainer.done)
    steps.close()

    assert trainer.done == before


@pytest.mark.parametrize("broken", ["forward_backward", "apply"])
def test_an_exception_in_a_step_reaches_the_caller(broken: str) -> None:
    trainer, run = make()
    run.engine = SimpleNamespace(
        **{
            "device": None,
            "ranks": 1,
            "forward_backward": lambda *_: True,
            "apply": lambda *_: True,
            "settle": lambda: True,
            broken: lambda *_: 1 / 0,
        }
    )

    with pytest.raises(ZeroDivisionError):
        list(training_loop(trainer, run))


def test_the_loop_is_a_page_and_names_no_backend() -> None:
    text = Path(loop.__file__).read_text(encoding="utf-8")
    body = text[text.index("def training_loop") :].splitlines()

    assert len(body) <= 35
    assert sum(line.lstrip().startswith(("if ", "for ", "while ", "try", "elif ")) for line in body) < 10
    assert not {"ddp", "fsdp", "cuda", "deepspeed", "torch"} & set(text.lower().replace(".", " ").split())
