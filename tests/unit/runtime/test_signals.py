"""What the handlers note, whom they leave alone, and that everything is as before afterwards."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from surestep import Interrupted
from surestep.errors import interruption
from surestep.runtime.signals import Signals

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SAVES = dict.fromkeys(("SIGTERM", "SIGINT", "SIGUSR1"), "save_and_stop")


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@contextmanager
def handler(number: int, what: object) -> Iterator[None]:
    """Give a signal another handler for a while."""
    before = signal.signal(number, what)  # type: ignore[arg-type]
    try:
        yield
    finally:
        signal.signal(number, before)


@contextmanager
def answered(signals: Signals, actions: dict[str, str]) -> Iterator[None]:
    """Listen, and answer what came before the end of the block."""
    with signals.listening(actions, "step"):
        yield
        signals.asked = None


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_noted_and_handlers_are_given_back(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    before, signals = [signal.getsignal(one) for one in NUMBERS], Signals()
    with answered(signals, SAVES):
        assert signals.stopping() == 0
        send(number)
        assert signals.stopping() == number
        assert signals.asked is not None
        assert (signals.asked.name, signals.asked.stops, signals.asked.saves) == (number.name, True, True)
    assert [signal.getsignal(one) for one in NUMBERS] == before
    assert f"{number.name}: finishing this step, then saving and stopping." in caplog.text
    assert ("Interrupt again to stop at once" in caplog.text) == (number == signal.SIGINT)


def test_a_second_interrupt_aborts_and_a_second_sigterm_does_not() -> None:
    signals = Signals()
    with answered(signals, SAVES):
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert signals.stopping() == signal.SIGTERM


def test_a_request_to_save_gives_way_to_one_to_stop() -> None:
    signals = Signals()
    with answered(signals, {**SAVES, "SIGUSR1": "save"}):
        send(signal.SIGUSR1)
        saving = signals.asked
        assert saving is not None
        assert not saving.stops
        send(signal.SIGINT)
        assert signals.stopping() == signal.SIGINT
        signals.done(saving)
        assert signals.stopping() == signal.SIGINT


def test_a_request_that_nobody_answered_ends_the_process_after_the_body() -> None:
    done = []

    def work() -> None:
        with Signals().listening(SAVES, "step"):
            send(signal.SIGTERM)
            done.append(1)

    with pytest.raises(Interrupted) as stop:
        work()
    assert (done, stop.value.signal_number, stop.value.code) == ([1], signal.SIGTERM, 143)


def test_an_error_of_the_body_is_not_hidden_by_a_signal() -> None:
    def work() -> None:
        with Signals().listening(SAVES, "step"):
            send(signal.SIGTERM)
            raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        work()


def test_what_is_left_alone_or_ignored_keeps_its_handler() -> None:
    came: list[int] = []
    with handler(signal.SIGUSR1, lambda number, frame: came.append(number)), handler(signal.SIGTERM, signal.SIG_IGN):
        signals = Signals()
        with answered(signals, {**SAVES, "SIGUSR1": "leave"}):
            send(signal.SIGUSR1)
            send(signal.SIGTERM)
            assert signals.asked is None
    assert came == [signal.SIGUSR1]


def test_a_handler_of_the_users_own_is_called_as_well() -> None:
    came: list[int] = []
    with handler(signal.SIGTERM, lambda number, frame: came.append(number)):
        signals = Signals()
        with answered(signals, SAVES):
            send(signal.SIGTERM)
            assert signals.stopping() == signal.SIGTERM
    assert came == [signal.SIGTERM]


def test_inside_another_block_nothing_changes() -> None:
    signals = Signals()
    with answered(signals, {**SAVES, "SIGUSR1": "save"}):
        with signals.listening({**SAVES, "SIGUSR1": "stop"}, "batch"):
            send(signal.SIGUSR1)
        assert signals.asked is not None
        assert signals.asked.action == "save"


def test_another_thread_cannot_take_signals_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with Signals().listening(SAVES, "step"):
            seen.append(signal.getsignal(signal.SIGTERM))

    with caplog.at_level(logging.WARNING):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert seen == [before]


def test_a_signal_that_the_system_lacks_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(signal, "SIGUSR1")
    with answered(signals := Signals(), SAVES):
        assert sorted(signals.served) == [signal.SIGINT, signal.SIGTERM]
    assert "This system has no SIGUSR1" in caplog.text


def test_a_forked_child_leaves_signals_to_its_parent() -> None:
    signals = Signals()
    with answered(signals, SAVES):
        child = os.fork()
        if child == 0:
            send(signal.SIGTERM)
            os._exit(0 if signals.asked is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_one_of_ctrl_c_is_a_keyboard_interrupt_too() -> None:
    assert isinstance(interruption(signal.SIGINT), KeyboardInterrupt)
    assert not isinstance(interruption(signal.SIGTERM), KeyboardInterrupt)
    assert not isinstance(interruption(signal.SIGTERM), Exception)
    assert [interruption(number).code for number in NUMBERS] == [143, 130, 138]
