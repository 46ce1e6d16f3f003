"""A list of callbacks that a script makes itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.small import quick
from transformers.trainer_callback import CallbackHandler as TheirHandler

from surestep import TrainerCallback, TrainerControl, TrainerState
from surestep.compat.helpers.callbacks import CallbackHandler
from surestep.errors import ArgumentError
from surestep.trainer.defaults import DEFAULT_CALLBACKS


class Notes(TrainerCallback):
    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.seen.append(("step", given["model"]))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:
        self.seen.append(("log", dict(logs)))


@pytest.mark.parametrize("kind", [CallbackHandler, TheirHandler])
@pytest.mark.filterwarnings("ignore")
def test_it_calls_what_it_was_given(kind: Any) -> None:
    notes = Notes()
    handler = kind([notes], "model", "tokenizer", "optimizer", "schedule")
    control = TrainerControl(should_log=True)
    handler.on_step_begin("args", TrainerState(), control)
    handler.on_log("args", TrainerState(), control, {"loss": 1.0})

    assert notes.seen == [("step", "model"), ("log", {"loss": 1.0})]
    assert not control.should_log
    assert handler.callback_list == "Notes"


def test_a_trainer_that_is_given_one_tells_it_its_events(tmp_path: Path) -> None:
    trainer = quick(tmp_path, logging_steps=5)
    notes = Notes()
    trainer.callback_handler = CallbackHandler(
        [*trainer.callback_handler.callbacks, notes], trainer.model, None, trainer.optimizer, trainer.lr_scheduler
    )
    trainer.train()

    assert [kind for kind, _ in notes.seen] == ["step"] * 5 + ["log"] * 2
    assert notes.seen[0][1] is trainer.model
    assert trainer.state.global_step == 5


@pytest.mark.filterwarnings("ignore")
def test_a_handler_that_cannot_be_told_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="CallbackHandler of surestep"):
        quick(tmp_path).callback_handler = TheirHandler([], None, None, None, None)


def test_every_trainer_begins_with_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surestep.trainer.defaults.DEFAULT_CALLBACKS", [*DEFAULT_CALLBACKS, Notes])
    trainer = quick(tmp_path)

    assert [type(one).__name__ for one in trainer.callback_handler.callbacks][:2] == ["DefaultFlowCallback", "Notes"]
