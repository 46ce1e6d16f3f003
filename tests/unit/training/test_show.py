"""The loop as text agrees with the loop."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from surestep.training.callback import EVENTS, TrainerCallback
from surestep.training.events import Events
from surestep.training.show import show_loop


class Steps(TrainerCallback):
    def on_step_end(self, *_: Any, **__: Any) -> None: ...


class StepsAndLogs(Steps):
    def on_log(self, *_: Any, **__: Any) -> None: ...


def shown(*callbacks: Any) -> list[str]:
    return show_loop(Events(SimpleNamespace(), callbacks, model=None, processing_class=None)).splitlines()


def line_with(text: str, lines: list[str]) -> str:
    return next(line for line in lines if text in line)


def test_every_event_of_training_has_its_line_in_the_order_of_firing() -> None:
    text = "\n".join(shown())
    outside = {"on_init_end", "on_predict", "on_push_begin"}
    places = {event: text.index(f"[{event}:") for event in EVENTS if event not in outside}

    loop_order = [
        "on_train_begin", "on_epoch_begin", "on_step_begin", "on_substep_end", "on_pre_optimizer_step",
        "on_optimizer_step", "on_step_end", "on_log", "on_prediction_step", "on_evaluate", "on_save", "on_epoch_end",
        "on_train_end",
    ]  # fmt: skip
    assert sorted(places, key=lambda event: places[event]) == loop_order


def test_listeners_are_named_where_they_listen_in_their_order() -> None:
    lines = shown(StepsAndLogs(), Steps())

    assert line_with("on_step_end", lines).endswith("[on_step_end: StepsAndLogs, Steps]")
    assert line_with("on_log", lines).endswith("[on_log: StepsAndLogs]")
    assert line_with("on_save", lines).endswith("[on_save: nobody]")


def test_the_text_is_indented_as_the_loop_is() -> None:
    assert [line.partition(" [")[0].rstrip() for line in shown()] == [
        "train begins",
        "for each epoch",
        "    epoch begins",
        "    for each group of micro-batches that makes one optimizer step",
        "        step begins",
        "        for each micro-batch: training_step, forward and backward",
        "            between two of them",
        "        clip the gradients",
        "        step the optimizer",
        "        step the schedule unless the optimizer's step was skipped; drop the gradients",
        "        count the samples and the step",
        "        if somebody asked: log",
        "        if somebody asked: evaluate, after each batch of it",
        "            once it is done",
        "        if somebody asked: save",
        "        leave if somebody asked",
        "    epoch ends",
        "    log, evaluate, save if somebody asked; leave if somebody asked",
        "log the summary; load the best model if the arguments say so",
        "train ends",
    ]
