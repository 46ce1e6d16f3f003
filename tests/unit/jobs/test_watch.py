"""Interruptions: what is asked of the run, and when."""

from __future__ import annotations

import os
import signal
import threading
from types import SimpleNamespace

import pytest

from surestep import TrainerControl, TrainerState
from surestep.jobs.watch import NoteBeginning, StopWhenInterrupted


def _state(epoch: float) -> TrainerState:
    return TrainerState(epoch=epoch, global_step=7, max_steps=20)


def _interrupted(said: list[str]) -> StopWhenInterrupted:
    stop = StopWhenInterrupted(said.append)
    with stop.listening():
        os.kill(os.getpid(), signal.SIGINT)
    return stop


def test_without_a_signal_nothing_is_asked() -> None:
    stop, control = StopWhenInterrupted(print), TrainerControl(should_evaluate=True, should_save=True)
    stop.on_step_end(SimpleNamespace(save_strategy="steps"), _state(0.5), control)
    stop.on_epoch_end(SimpleNamespace(save_strategy="steps"), _state(0.5), control)
    assert (control.should_training_stop, control.should_save, control.should_evaluate) == (False, True, True)


@pytest.mark.parametrize(
    ("epoch", "strategy", "save"),
    [(0.5, "epoch", True), (1.0, "epoch", False), (1.0, "steps", True), (0.5, "no", True)],
)
def test_a_step_is_saved_unless_the_end_of_its_epoch_saves_it(epoch: float, strategy: str, save: bool) -> None:
    said: list[str] = []
    stop, control = _interrupted(said), TrainerControl()
    stop.on_step_end(SimpleNamespace(save_strategy=strategy), _state(epoch), control)
    assert control.should_training_stop
    assert control.should_save is save
    assert len(said) == 1


@pytest.mark.parametrize(("epoch", "kept"), [(0.5, False), (1.0, True)])
def test_an_epoch_that_was_cut_short_is_not_judged(epoch: float, kept: bool) -> None:
    stop, control = _interrupted([]), TrainerControl(should_evaluate=True, should_save=True)
    stop.on_epoch_end(SimpleNamespace(save_strategy="epoch"), _state(epoch), control)
    assert (control.should_evaluate, control.should_save) == (kept, kept)


def test_handlers_are_given_back_and_a_second_signal_stops_at_once() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stop = StopWhenInterrupted(lambda text: None)
    with stop.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert stop.signal_number == signal.SIGTERM
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_outside_the_main_thread_signals_are_left_to_others() -> None:
    before = signal.getsignal(signal.SIGINT)
    stop = StopWhenInterrupted(lambda text: None)
    seen: list[object] = []

    def work() -> None:
        with stop.listening():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_where_training_begins_is_noted_and_said_when_it_goes_on() -> None:
    said: list[str] = []
    note = NoteBeginning(said.append)
    note.on_train_begin(None, TrainerState(global_step=0, max_steps=20), TrainerControl())
    assert (note.step, said) == (0, [])
    note.on_train_begin(None, TrainerState(global_step=7, max_steps=20), TrainerControl())
    assert (note.step, said) == (7, ["Going on from step 7 of 20."])
