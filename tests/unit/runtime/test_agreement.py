"""What processes agree through: the place at which all stop, and how each has failed."""

from __future__ import annotations

import itertools
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore

from surestep.runtime import agreement
from surestep.runtime.agreement import Agreement, Meeting
from surestep.runtime.signals import Request, Signals
from surestep.runtime.world import World


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> list[Agreement]:
    """Give what three processes have, over one store."""
    store = HashStore()
    monkeypatch.setattr(agreement, "_get_default_store", lambda: store)
    monkeypatch.setattr(agreement, "_RUNS", itertools.repeat(0))
    return [Agreement(World(rank, 3), Signals()) for rank in range(3)]


def ask(rank: Agreement, action: str = "save_and_stop") -> None:
    rank._signals.asked = Request(signal.SIGTERM, action, 0.0)


def test_all_stop_at_the_first_place_from_which_all_attend(ranks: list[Agreement]) -> None:
    ask(ranks[1])
    assert ranks[1].settle(4) is None
    assert all(one.asked for one in ranks)
    assert ranks[0].settle(4) is None
    assert ranks[0].settle(6) is None
    # The last one is a step behind: what was settled without it holds for it as well.
    assert [ranks[2].settle(place) is None for place in (4, 6)] == [True, True]
    places = [next(place for place in (6, 8, 10) if one.settle(place)) for one in (ranks[1], ranks[2], ranks[0])]
    assert places == [8, 8, 8]


def test_a_meeting_is_where_everybody_knows_and_each_has_its_own_name() -> None:
    store = HashStore()
    for name in ("first", "second"):
        one, other = (Meeting(store, World(rank, 2), name) for rank in range(2))
        assert not one.attend(4)
        assert one.attending
        assert not other.attending
        assert not other.attend(4)
        # Nobody was at 5 but the second, who settles it for both; the first is behind.
        assert other.attend(5)
        assert one.attend(5)


def test_a_request_is_of_its_round(ranks: list[Agreement]) -> None:
    ask(ranks[0], "save")
    for place in (2, 4):
        found = [one.settle(place) for one in ranks]
    assert [one and (one.number, one.action) for one in found] == [(signal.SIGTERM, "save")] * 3
    for one, request in zip(ranks, found, strict=True):
        assert request is not None
        one.done(request)
        one._look_at = 0.0
    assert not any(one.asked for one in ranks)


def test_each_hears_how_the_others_have_failed(ranks: list[Agreement]) -> None:
    with ThreadPoolExecutor(3) as pool:
        told = list(pool.map(lambda one: one.told_failures(f"rank {one._world.rank}", wait=20), ranks))
    assert told == [{0: "rank 0", 1: "rank 1", 2: "rank 2"}] * 3


def test_who_fails_alone_waits_no_longer_than_asked(ranks: list[Agreement]) -> None:
    assert ranks[2].told_failures("elsewhere", wait=0.0) == {2: "elsewhere"}
    assert ranks[0].told_failures("here", wait=0.05) == {0: "here", 2: "elsewhere"}
    # The next failure is another one.
    assert ranks[0].told_failures("again", wait=0.0) == {0: "again"}


def test_a_store_that_is_gone_has_told_nothing(ranks: list[Agreement], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("Connection reset by peer")

    monkeypatch.setattr(ranks[0], "_store", type("Gone", (), {"set": broken})())
    assert ranks[0].told_failures("here", wait=20) == {0: "here"}
