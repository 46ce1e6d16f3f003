"""Who fails alone leaves a word, and who loses a connection finds it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import torch
import torch.distributed as dist

from surestep.errors import RankError
from surestep.runtime import last_words
from surestep.runtime.last_words import leaving_last_words
from surestep.runtime.world import World

BROKEN = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> dist.HashStore:
    """The store of processes that are one here: each counts its runs from 0."""
    made = dist.HashStore()
    monkeypatch.setattr(last_words, "_get_default_store", lambda: made)
    return made


def fails(rank: int, error: Exception, run: int = 0, size: int = 3) -> Exception | None:
    """Let a rank fail in one of its runs; return what it raises."""
    last_words._RUNS = iter([run])  # type: ignore[assignment]
    try:
        with leaving_last_words(World(rank=rank, local_rank=rank, size=size, local_size=size)):
            raise error
    except Exception as raised:
        return raised
    return None


@pytest.mark.parametrize(
    ("error", "said", "memory"),
    [
        (ValueError("a bad sample\nand more"), "ValueError: a bad sample", False),
        (ZeroDivisionError(), "ZeroDivisionError", False),
        (torch.OutOfMemoryError("CUDA out of memory"), "OutOfMemoryError: CUDA out of memory", True),
        # One of the user's own connections.
        (ConnectionError("Connection reset by peer"), "ConnectionError: Connection reset by peer", False),
    ],
)
def test_the_others_learn_who_failed_and_of_what(
    store: dist.HashStore, error: Exception, said: str, memory: bool
) -> None:
    assert fails(1, error) is error
    for rank in (0, 2):
        raised = fails(rank, BROKEN)
        assert isinstance(raised, RankError)
        assert str(raised) == f"Rank 1 has failed: {said}"
        assert raised.__cause__ is BROKEN
        assert raised.out_of_memory is memory


def test_the_first_that_fails_counts(store: dist.HashStore) -> None:
    fails(1, ValueError("first"))
    fails(2, ValueError("second"))
    # Who ends because of another leaves no word of its own.
    fails(0, BROKEN)

    assert str(fails(0, BROKEN)) == "Rank 1 has failed: ValueError: first"


def test_a_run_knows_nothing_of_another(store: dist.HashStore) -> None:
    fails(1, ValueError("of the first run"), run=0)
    broken = RuntimeError(*BROKEN.args)

    assert fails(0, broken, run=1) is broken
    assert "left no word" in broken.__notes__[0]


@pytest.mark.parametrize("error", [dist.DistNetworkError("lost"), dist.DistBackendError("NCCL error"), BROKEN])
def test_a_process_that_was_killed_leaves_nothing_and_that_is_said(store: dist.HashStore, error: Exception) -> None:
    error = type(error)(*error.args)

    assert fails(0, error) is error
    assert "One that was killed, as a rule for want of memory, leaves none" in error.__notes__[0]


def test_a_store_that_is_gone_went_with_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(dist.HashStore):
        def check(self, keys: Any) -> bool:
            raise dist.DistNetworkError("failed to recv, got 0 bytes")

        def compare_set(self, *given: Any) -> Any:
            raise dist.DistNetworkError("failed to send")

    gone = Gone()
    monkeypatch.setattr(last_words, "_get_default_store", lambda: gone)
    monkeypatch.setattr(last_words, "PrefixStore", lambda prefix, store: store)
    broken, own = RuntimeError(*BROKEN.args), ValueError("own")

    assert fails(2, broken) is broken
    assert broken.__notes__ == ["Rank 0, which keeps what ranks leave for each other, has ended: its output says why."]
    assert fails(2, own) is own


def test_what_does_not_fail_leaves_nothing(store: dist.HashStore) -> None:
    last_words._RUNS = iter([0])  # type: ignore[assignment]
    with suppress(SystemExit), leaving_last_words(World(rank=0, local_rank=0, size=2, local_size=2)):
        raise SystemExit(143)

    assert store.num_keys() == 0
