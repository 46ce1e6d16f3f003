"""What each signal does, by the arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.small import arguments

from surestep.errors import ArgumentError
from surestep.trainer.stopping import actions_on_signals

USUAL = dict.fromkeys(("SIGTERM", "SIGINT", "SIGUSR1"), "save_and_stop")


@pytest.mark.parametrize(
    ("given", "actions"),
    [
        ({}, USUAL),
        ({"save_strategy": "no"}, dict.fromkeys(USUAL, "stop")),
        ({"save_strategy": "no", "on_signal": "save_and_stop"}, USUAL),
        ({"on_signal": "leave"}, dict.fromkeys(USUAL, "leave")),
        ({"on_signal": {"SIGUSR1": "save"}}, {**USUAL, "SIGUSR1": "save"}),
        ({"on_signal": '{"SIGINT": "leave"}'}, {**USUAL, "SIGINT": "leave"}),
        ({"on_signal": {"SIGTERM": "stop"}, "enable_jit_checkpoint": True}, {**USUAL, "SIGTERM": "stop"}),
    ],
)
def test_actions(given: dict[str, Any], actions: dict[str, str], tmp_path: Path) -> None:
    assert actions_on_signals(arguments(tmp_path, **{"save_strategy": "steps", **given})) == actions


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"on_signal": "safe"}, "save_and_stop, save, stop, leave"),
        ({"on_signal": {"TERM": "save"}}, "Did you mean"),
        ({"on_signal": {"SIGTERM": "end"}}, r"on_signal\['SIGTERM'\]='end' cannot be right"),
        ({"on_signal": 15}, "a dictionary or a JSON object"),
        ({"preemption_grace": "soon"}, "a length of time"),
        ({"preemption_grace": 0}, "preemption_grace=0"),
    ],
)
def test_what_cannot_be_right_is_refused(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=message):
        arguments(tmp_path, **given)


def test_a_signal_that_the_system_lacks_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr("signal.SIGUSR1")
    with pytest.raises(ArgumentError, match="it has no SIGUSR1"):
        arguments(tmp_path, on_signal={"SIGUSR1": "save"})


def test_a_grace_is_a_length_of_time(tmp_path: Path) -> None:
    assert arguments(tmp_path, preemption_grace="1m30s").preemption_grace == 90.0
