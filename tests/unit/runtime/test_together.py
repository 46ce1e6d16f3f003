"""What fails on one rank: told to those who ask, raised by all."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch

from surestep.errors import ArgumentError, DataError, NonFiniteError, RankError
from surestep.runtime.memory import is_out_of_memory
from surestep.runtime.together import ask_for_failures, failing_together, tell_failure
from surestep.runtime.world import World


class Ranks:
    """Rank 0 of two; what it hears of the other is given, and what it says is kept."""

    def __init__(self, size: int = 2, failed: Exception | None = None) -> None:
        self.world = World(size=size)
        self.failed = failed
        self.said: list[Any] = []

    def agree(self, number: int) -> list[int]:
        self.said.append(number)
        return [number, int(self.failed is not None)]

    def gather_objects(self, value: Any) -> list[Any]:
        self.said.append(value)
        return [value, self.failed]


def test_alone_nobody_is_asked() -> None:
    ranks = Ranks(size=1)
    with failing_together(ranks):
        pass
    with pytest.raises(KeyError), failing_together(ranks):
        raise KeyError
    assert ranks.said == []


def test_where_all_is_well_one_number_is_exchanged() -> None:
    ranks = Ranks()
    with failing_together(ranks):
        pass
    assert ranks.said == [0]


@pytest.mark.parametrize(
    ("error", "kind", "says", "memory"),
    [
        (DataError("no labels"), DataError, "no labels", False),
        (NonFiniteError("nan", step=3), NonFiniteError, "nan", False),
        (KeyError("x"), RankError, "Another rank has failed: KeyError: 'x'", False),
        (RuntimeError("first\nsecond"), RankError, "Another rank has failed: RuntimeError: first", False),
        (ZeroDivisionError(), RankError, "Another rank has failed: ZeroDivisionError", False),
        (torch.OutOfMemoryError("no memory"), RankError, "OutOfMemoryError: no memory", True),
        (RuntimeError("CUDA error: out of memory"), RankError, "RuntimeError: CUDA error: out of memory", True),
    ],
)
def test_what_is_told_is_raised(error: Exception, kind: type[Exception], says: str, memory: bool) -> None:
    here = Ranks()
    with pytest.raises(type(error)) as own, failing_together(here):
        raise error
    assert own.value is error
    assert here.said[0] == 1
    sent = pickle.loads(pickle.dumps(here.said[1]))

    with pytest.raises(kind, match=says) as heard, failing_together(Ranks(failed=sent)):
        pass
    assert heard.value.__notes__ == ["It happened on rank 1."]
    assert is_out_of_memory(heard.value) is memory


def test_asking_and_telling_are_the_same_exchanges() -> None:
    one, other = Ranks(), Ranks(failed=ArgumentError("wrong"))
    tell_failure(one, ArgumentError("wrong"))
    with pytest.raises(ArgumentError, match="wrong"):
        ask_for_failures(other)
    assert [type(said) for said in one.said] == [int, ArgumentError]
    assert [type(said) for said in other.said] == [int, type(None)]
