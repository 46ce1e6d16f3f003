import threading
import time

import pytest

from surestep.callbacks.trackers import outbox as module
from surestep.callbacks.trackers.entries import Entry
from surestep.callbacks.trackers.outbox import Outbox


class Away:
    """A tracker that can be away, or that cannot take certain steps."""

    def __init__(self):
        self.away, self.bad, self.got, self.failures = False, set(), [], 0

    def send(self, entry):
        if self.away or entry.step in self.bad:
            raise ConnectionError("nobody there")
        self.got.append(entry.step)

    def failed(self, error):
        assert isinstance(error, ConnectionError)
        self.failures += 1


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def away():
    return Away()


def put(outbox, *steps):
    for step in steps:
        outbox.put(Entry(step, {"loss": 1.0}))


def test_entries_are_sent_at_once_and_in_order(away):
    put(Outbox(away.send, away.failed), 1, 2, 3)
    assert away.got == [1, 2, 3]


def test_what_cannot_be_sent_waits_and_goes_first(away, clock):
    outbox = Outbox(away.send, away.failed)
    away.away = True
    put(outbox, 1, 2)
    assert [entry.step for entry in outbox.unsent] == [1, 2]
    away.away = False
    put(outbox, 3)
    assert away.got == []
    clock.now += 5
    put(outbox, 4)
    assert away.got == [1, 2, 3, 4]
    assert outbox.unsent == []


def test_pauses_grow_up_to_five_minutes(away, clock):
    outbox = Outbox(away.send, away.failed)
    away.away = True
    put(outbox, 1)
    attempts = []
    for _ in range(40):
        before = away.failures
        start = clock.now
        while away.failures == before:
            clock.now += 1
            outbox.deliver()
        attempts.append(clock.now - start)
    assert attempts[:4] == [5, 10, 20, 40]
    assert attempts[-1] == 300


def test_an_entry_that_alone_fails_is_given_up(away, clock):
    outbox = Outbox(away.send, away.failed)
    away.bad = {2}
    put(outbox, 1, 2, 3, 4)
    for _ in range(5):
        clock.now += 300
        outbox.deliver()
    assert away.got == [1, 3, 4]
    assert [entry.step for entry in outbox.unsent] == [2]


def test_a_tracker_that_is_away_loses_nothing(away, clock):
    outbox = Outbox(away.send, away.failed)
    away.away = True
    put(outbox, 1, 2, 3)
    for _ in range(20):
        clock.now += 300
        outbox.deliver()
    away.away = False
    outbox.flush(0)
    assert away.got == [1, 2, 3]


def test_flushing_tries_without_a_pause(away, clock):
    outbox = Outbox(away.send, away.failed)
    away.away = True
    put(outbox, 1)
    away.away = False
    outbox.flush(0)
    assert away.got == [1]


def test_a_failure_may_be_raised_on(away):
    def stop(error):
        raise KeyError from error

    away.away = True
    with pytest.raises(KeyError):
        put(Outbox(away.send, stop), 1)


def test_a_thread_sends_in_order_while_the_caller_goes_on(away):
    gate = threading.Event()

    def slow(entry):
        gate.wait(10)
        away.send(entry)

    outbox = Outbox(slow, away.failed, background=True)
    put(outbox, *range(50))
    assert away.got == []
    gate.set()
    outbox.flush(10)
    assert away.got == list(range(50))
    assert outbox.unsent == []


def test_a_thread_that_cannot_send_holds_nobody_up(away):
    away.away = True
    outbox = Outbox(away.send, away.failed, background=True)
    put(outbox, 1, 2)
    outbox.flush(60)
    assert [entry.step for entry in outbox.unsent] == [1, 2]
    away.away = False
    outbox.flush(60)
    assert away.got == [1, 2]


def test_what_is_cleared_while_it_is_sent_does_no_harm(away):
    sending, gate = threading.Event(), threading.Event()

    def slow(entry):
        sending.set()
        gate.wait(10)
        away.send(entry)

    outbox = Outbox(slow, away.failed, background=True)
    put(outbox, 1, 2)
    sending.wait(10)
    outbox.clear()
    gate.set()
    put(outbox, 3)
    outbox.flush(10)
    deadline = time.monotonic() + 10
    while away.got != [1, 3] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert away.got == [1, 3]


def test_a_thread_with_nothing_to_send_ends_and_another_follows(away, monkeypatch):
    monkeypatch.setattr(module, "_IDLE", 0.01)
    threads = []

    def send(entry):
        threads.append(threading.current_thread())
        away.send(entry)

    outbox = Outbox(send, away.failed, background=True)
    for number in (1, 2):
        put(outbox, number)
        outbox.flush(10)
        threads[-1].join(10)
        assert not threads[-1].is_alive()
    assert away.got == [1, 2]
    assert threads[0] is not threads[1]
