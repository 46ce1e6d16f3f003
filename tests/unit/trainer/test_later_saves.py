"""What `save_async` looks at between two steps, what that costs, and which saves are made at once all the same."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from benchmarks import overhead
from tests.small import quick

from surestep import Trainer
from surestep.trainer.later_saves import Look, begin_later_saves
from surestep.trainer.older import overridden

LATER: dict[str, Any] = {"save_async": True, "save_strategy": "steps", "save_steps": 1000}


@pytest.mark.timeout(120)
def test_a_step_costs_one_call_more(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, calls = overhead._settings, {}
    for later in (False, True):
        more = {"save_strategy": "steps", "save_steps": 10**6, "save_async": later}
        monkeypatch.setattr(overhead, "_settings", lambda *given, more=more: settings(*given) | more)
        calls[later] = overhead.calls_per_step(overhead.ours)
    assert calls[True] - calls[False] <= 1.1


class Rare:
    """Signals of several processes, of which one is looked up now and then only: the second look finds nothing."""

    def __init__(self) -> None:
        self.looks = 0
        self.places: list[int] = []

    @property
    def asked(self) -> bool:
        self.looks += 1
        return self.looks == 1

    def settle(self, place: int) -> None:
        self.places.append(place)


def saves() -> Any:
    concluded: list[int] = []
    return SimpleNamespace(writer=SimpleNamespace(ready=False), look=concluded.append, concluded=concluded)


def test_a_signal_that_was_seen_is_settled() -> None:
    signals, under_way = Rare(), saves()
    look = Look(signals, under_way)  # type: ignore[arg-type]
    assert look.asked
    look.settle(7)
    assert signals.places == [7]
    assert under_way.concluded == []


def test_a_save_that_is_finished_is_concluded_and_nobody_attends_to_signals() -> None:
    signals, under_way = Rare(), saves()
    signals.looks = 5
    look = Look(signals, under_way)  # type: ignore[arg-type]
    assert not look.asked
    under_way.writer.ready = True
    assert look.asked
    assert look.settle(8) is None
    assert under_way.concluded == [8]
    assert signals.places == []


class Own(Trainer):
    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)


class Quiet(Own):
    def log(self, logs: Any, start_time: Any = None) -> None:
        """Log nothing."""


def test_what_is_overridden_is_found_in_every_class_and_on_the_object(tmp_path: Path) -> None:
    names = ("_save", "_save_rng_state", "save_model")
    assert overridden(quick(tmp_path), names) == []
    trainer = quick(tmp_path, Quiet)
    assert overridden(trainer, names) == ["_save_rng_state"]
    trainer._save = lambda *_: None  # type: ignore[method-assign, misc, assignment]
    assert overridden(trainer, names) == ["_save", "_save_rng_state"]


def test_a_model_in_another_form_for_the_hub_is_saved_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = quick(tmp_path, **LATER)
    monkeypatch.setattr("surestep.trainer.later_saves.is_stored_otherwise", lambda model: True)
    trainer.args.push_to_hub = True
    with caplog.at_level(logging.INFO, logger="surestep"):
        begin_later_saves(trainer)
    assert trainer._later is None
    assert "what goes to the hub is in another form than a checkpoint" in caplog.text
