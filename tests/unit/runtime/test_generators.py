"""Default generators borrowed and given back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random.mtrand import get_bit_generator, set_bit_generator

from surestep.runtime import generators
from surestep.runtime.generators import (
    Draws,
    borrowed_defaults,
    derive,
    keep_defaults,
    put_back_defaults,
    seed_defaults,
)

SEEDS = (3, 4, 5)


def draws() -> list[float]:
    """Draw from all three, normal numbers an odd number of times, so that one of each pair waits."""
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
        float(torch.rand(())),
        float(torch.randn(())),
    ]


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.fixture
def another_kind() -> Iterator[None]:
    """A generator of another kind behind NumPy's functions."""
    before = get_bit_generator()
    set_bit_generator(np.random.PCG64(1))
    yield
    set_bit_generator(before)


def assert_undisturbed(before: int) -> None:
    seed_all(0)
    expected = [draws() for _ in range(before + 3)]
    seed_all(0)
    seen = [draws() for _ in range(before)]
    kept = keep_defaults()
    seed_defaults(SEEDS)
    draws()
    put_back_defaults(kept)
    seen += [draws() for _ in range(3)]
    assert seen == expected


@pytest.mark.parametrize("before", range(4))
def test_generators_are_put_back_with_the_numbers_that_wait_in_them(before: int) -> None:
    assert_undisturbed(before)


def test_states_are_copied_as_memory_where_they_can_be() -> None:
    memory = generators._find_python_memory()
    assert memory is not None, "this python keeps its generator otherwise: every batch costs more"
    random.seed(5)
    before = memory.raw
    random.random()
    assert memory.raw != before


def test_where_pythons_memory_cannot_be_copied_its_state_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generators, "_python_memory", None)
    assert_undisturbed(1)


def test_seeds_are_those_that_the_libraries_know() -> None:
    draws()
    seed_defaults(SEEDS)
    python, numpy, generator = random.Random(3), np.random.RandomState(4), torch.Generator().manual_seed(5)
    assert draws() == [
        python.random(),
        python.gauss(0, 1),
        numpy.rand(),
        numpy.randn(),
        float(torch.rand((), generator=generator)),
        float(torch.randn((), generator=generator)),
    ]


@pytest.mark.usefixtures("another_kind")
def test_another_kind_of_generator_behind_numpy_is_served() -> None:
    def drawn() -> list[float]:
        with borrowed_defaults(SEEDS):
            return draws()

    # Plugins of pytest seed the generator between the fixture and the test.
    set_bit_generator(np.random.PCG64(1))
    first, after = drawn(), float(np.random.randn())
    assert drawn() == first
    set_bit_generator(np.random.PCG64(1))
    assert float(np.random.randn()) == after


def test_an_error_in_the_body_leaves_them_as_they_were() -> None:
    seed_all(1)
    expected = draws()
    seed_all(1)
    with suppress(ValueError), borrowed_defaults(SEEDS):
        draws()
        raise ValueError
    assert draws() == expected


def test_the_seed_that_torch_tells_is_put_back() -> None:
    torch.manual_seed(77)
    with borrowed_defaults(SEEDS):
        assert torch.initial_seed() == 5
    assert torch.initial_seed() == 77


def test_any_other_number_gives_other_seeds() -> None:
    numbers: list[dict[str, Any]] = [
        {},
        {"epoch": 1},
        {"place": 1},
        {"part": 1},
        *({"kind": kind} for kind in Draws if kind),
    ]
    found = [derive(seed, **one) for seed in (0, 1, 2**64 - 1) for one in numbers]
    assert len({value for seeds in found for value in seeds}) == 3 * len(found)
    assert derive(2**64) == derive(0)


def test_seeds_stay_what_they_are() -> None:
    """Runs that were saved under one version go on under the next."""
    assert derive(42, epoch=3, place=1000) == (17555025195468750395, 1899640548, 12666858570217977659)
