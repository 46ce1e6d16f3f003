"""Generators that datasets, collators and samplers hold for themselves."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, WeightedRandomSampler

from surestep.checkpoint.tree import read_tree, write_tree
from surestep.data.hidden import generators_in, moved, put_back, same, states_of
from surestep.data.reading import Reader

KINDS: dict[str, Callable[[], Any]] = {
    "python": lambda: random.Random(1),
    "numpy": lambda: np.random.default_rng(1),
    "an older numpy": lambda: np.random.RandomState(1),
    "a twister of numpy": lambda: np.random.Generator(np.random.MT19937(1)),
    "torch": lambda: torch.Generator().manual_seed(1),
}
SHARED = np.random.default_rng(3)


def drawn(generator: Any) -> float:
    """Draw a normal number, so that another one may wait."""
    if isinstance(generator, torch.Generator):
        return float(torch.randn((), generator=generator))
    if isinstance(generator, random.Random):
        return generator.gauss(0, 1)
    return float(generator.normal())


class Holder:
    def __init__(self, what: Any) -> None:
        self.what = what


class Slotted:
    __slots__ = ("empty", "what")

    def __init__(self, what: Any) -> None:
        self.what = what


class Calling:
    def __init__(self, what: Any) -> None:
        self.what = what

    def collate(self, samples: Any) -> Any:
        return self.what, samples


class Own(Holder):
    def set_batch_seed(self, seed: int) -> None:
        self.what = seed


def closed_over(generator: Any) -> Any:
    return lambda samples: (generator, samples)


def uses_the_shared(samples: Any) -> Any:
    return SHARED.random(), samples


class UsesTheShared:
    def __getitem__(self, index: int) -> float:
        return float(SHARED.random())


@pytest.mark.parametrize(
    ("hide", "place"),
    [
        (Holder, "data.what"),
        (Slotted, "data.what"),
        (lambda generator: Holder([1, {"rng": generator}]), "data.what[1]['rng']"),
        (lambda generator: torch.nn.Sequential(torch.nn.Identity(), Module(generator)), "data._modules['1'].what"),
        (closed_over, "data -> generator"),
        (lambda generator: partial(max, generator, key=1), "data.args[0]"),
        (lambda generator: partial(max, key=generator), "data.key"),
        (lambda generator: Calling(generator).collate, "data.what"),
        (lambda generator: generator, "data"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_is_found_where_it_is(kind: str, hide: Callable[[Any], Any], place: str) -> None:
    generator = KINDS[kind]()
    assert generators_in("data", hide(generator)) == {place: generator}


class Module(torch.nn.Module):
    def __init__(self, what: Any) -> None:
        super().__init__()
        self.what = what


def test_globals_that_functions_name_are_found() -> None:
    assert generators_in("collate_fn", uses_the_shared) == {"collate_fn -> SHARED": SHARED}
    assert generators_in("dataset", UsesTheShared()) == {"dataset.__getitem__ -> SHARED": SHARED}


@pytest.mark.parametrize(
    "nothing",
    [
        None,
        "text",
        torch.zeros(3),
        Holder([random._inst, np.random.mtrand._rand, torch.default_generator]),  # type: ignore[attr-defined]
        Own(random.Random(1)),
        Holder([random.Random(1)] * 1000),
        max,
    ],
)
def test_what_is_seeded_or_is_none_is_not_found(nothing: Any) -> None:
    assert generators_in("data", nothing) == {}


def test_what_refers_to_itself_is_walked_once() -> None:
    holder = Holder(None)
    holder.what = {"self": holder, "rng": random.Random(1)}
    assert list(generators_in("data", holder)) == ["data.what['rng']"]


@pytest.mark.parametrize("kind", KINDS)
def test_states_come_back_by_way_of_the_disk(kind: str, tmp_path: Path) -> None:
    one, other = KINDS[kind](), KINDS[kind]()
    for _ in range(3):
        drawn(one)
    write_tree(tmp_path, "states", states_of({"a": one}))
    expected = [drawn(one) for _ in range(3)]
    states = read_tree(tmp_path, "states")
    assert moved({"a": one}, states) == ["a"]
    assert put_back({"a": other}, {**states, "gone": 1}) == ["gone"]
    assert moved({"a": other}, states) == []
    assert [drawn(other) for _ in range(3)] == expected


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ({"x": torch.tensor([1.0, float("nan")])}, {"x": torch.tensor([1.0, float("nan")])}, True),
        ({"x": torch.tensor([1.0])}, {"x": torch.tensor([1.5])}, False),
        ({"x": torch.tensor([1])}, {"x": torch.tensor([1, 1])}, False),
        ({"x": 1}, {"y": 1}, False),
        ([1, np.array([1, 2])], [1, np.array([1, 2])], True),
        ([1, np.array(["a"])], [1, np.array(["b"])], False),
        ((1, 2), [1, 2], False),
        (float("nan"), float("nan"), True),
        ("a", "b", False),
        ([1], [1, 2], False),
    ],
)
def test_batches_are_compared_to_the_last_bit(one: Any, other: Any, equal: bool) -> None:
    assert same(one, other) is equal


class Noisy(Dataset[Any]):
    """A dataset that draws from a generator of its own."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, drawn(self.generator)


class Wandering(BatchSampler):
    """A batch sampler that draws from a generator of its own, batch by batch."""

    def __init__(self, generator: Any) -> None:
        super().__init__(range(12), 3, drop_last=False)
        self.generator = generator

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(5):
            yield [int(abs(drawn(self.generator)) * 4) for _ in range(3)]


def weighted(generator: Any, **options: Any) -> DataLoader[Any]:
    sampler = WeightedRandomSampler([1.0] * 12, 12, generator=generator)
    return DataLoader(list(range(12)), 3, sampler=sampler, collate_fn=list, **options)  # type: ignore[arg-type]


class Foreign:
    def __init__(self) -> None:
        self.generator = random.Random(1)

    def __iter__(self) -> Iterator[list[float]]:
        return ([self.generator.random()] for _ in range(5))


MAKERS: dict[str, Callable[[], Any]] = {
    "a sampler's generator": lambda: weighted(torch.Generator().manual_seed(5)),
    "a sampler's generator, with workers": lambda: weighted(torch.Generator().manual_seed(5), num_workers=2),
    **{
        f"a batch sampler's: {kind}": lambda make=make: DataLoader(
            list(range(100)),  # type: ignore[arg-type]
            batch_sampler=Wandering(make()),
            collate_fn=list,
        )
        for kind, make in KINDS.items()
    },
    **{
        f"a dataset's: {kind}": lambda make=make: DataLoader(Noisy(make()), 3, collate_fn=list)
        for kind, make in KINDS.items()
    },
    "a foreign loader's": Foreign,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_resumed_run_reads_on_by_the_same_generators(kind: str, tmp_path: Path) -> None:
    """Stopped within an epoch and between two, and resumed with new objects."""
    reader = Reader(MAKERS[kind](), seed=1)
    whole: list[list[Any]] = []
    for epoch in range(3):
        whole.append([])
        for done, batch in enumerate(reader.batches(epoch), start=1):
            whole[-1].append(batch)
            write_tree(tmp_path, f"{epoch}-{done}", reader.state_dict())
    for epoch in range(3):
        for done in range(1, len(whole[epoch]) + 1):
            resumed = Reader(MAKERS[kind](), seed=1)
            resumed.load_state_dict(read_tree(tmp_path, f"{epoch}-{done}"))
            here = (epoch, done) if done < len(whole[epoch]) else (epoch + 1, 0)
            rest = list(resumed.batches(here[0], done=here[1]))
            assert rest == ([*whole, []][here[0]] if here[0] < 3 else rest)[here[1] :], f"epoch {epoch}, batch {done}"
            if here[0] == 1:
                assert list(resumed.batches(2)) == whole[2]


def test_going_back_within_a_run_puts_generators_back() -> None:
    reader = Reader(MAKERS["a dataset's: numpy"](), seed=1)
    batches = reader.batches(0)
    next(batches)
    state = reader.state_dict()
    rest = list(batches)
    reader.load_state_dict(state)
    assert list(reader.batches(0, done=1)) == rest


def test_a_generator_that_is_gone_is_told(caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader(MAKERS["a dataset's: numpy"](), seed=1)
    next(reader.batches(0))
    resumed = Reader(DataLoader(list(range(12)), 3), seed=1)  # type: ignore[arg-type]
    resumed.load_state_dict(reader.state_dict())
    next(resumed.batches(0, done=1))
    assert "does not have: dataset.generator." in caplog.text
