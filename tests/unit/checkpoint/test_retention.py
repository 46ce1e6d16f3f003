"""Which checkpoints stay: the last, the best, the first of every so many steps, and only this run's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.checkpoint.stores import make_store, save, steps

from surestep.checkpoint.retention import Kept, Retention

SCORES = {100: 0.5, 200: 0.2, 300: None, 400: 0.9, 500: 0.2, 600: 0.7}
ALL = list(SCORES)


def kept(scores: dict[int, float | None] | None = None) -> list[Kept]:
    found = SCORES if scores is None else scores
    return [Kept(Path(f"/run/checkpoint-{step}"), step, score) for step, score in found.items()]


def left(retention: Retention, *, protect: tuple[int, ...] = (), newest: int | None = 600) -> list[int]:
    """Return the steps that stay."""
    named = {item.step: item.path for item in kept()}
    spare = retention.spare(kept(), None if newest is None else named[newest], [named[step] for step in protect])
    return [item.step for item in kept() if item.path not in spare]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, ALL),
        ({"last": 2}, [500, 600]),
        ({"best": 1}, [200, 600]),
        ({"best": 2}, [200, 500, 600]),
        ({"best": 2, "greater_is_better": True}, [400, 600]),
        ({"best": 3, "greater_is_better": True}, [100, 400, 600]),
        ({"best": 9}, [100, 200, 400, 500, 600]),
        ({"every": 200}, [200, 400, 600]),
        # Where no save comes at the multiple itself, the first after it stays.
        ({"every": 250}, [300, 500, 600]),
        ({"every": 50}, ALL),
        ({"every": 1000}, [600]),
        ({"last": 2, "best": 1}, [200, 500, 600]),
        ({"last": 3, "every": 300}, [300, 400, 500, 600]),
        ({"last": 1, "best": 1, "every": 400, "greater_is_better": True}, [400, 600]),
    ],
)
def test_each_rule_adds_to_the_others(rules: dict[str, Any], expected: list[int]) -> None:
    assert left(Retention(**rules)) == expected


def test_what_is_protected_counts_among_the_last_unless_the_best_are_kept_besides() -> None:
    assert left(Retention(last=2), protect=(100,)) == [100, 600]
    assert left(Retention(last=2, best=1), protect=(100,)) == [100, 200, 500, 600]
    assert left(Retention(last=1, best=1), protect=(200,), newest=None) == [200]


def test_of_equals_the_earlier_one_is_better() -> None:
    assert [item.step for item in Retention(best=1).best_of(kept())] == [200]


@pytest.mark.parametrize(
    ("score", "stays"), [(0.1, True), (0.2, False), (0.3, False), (math.nan, False), (math.inf, False)]
)
def test_what_would_be_among_the_best_is_known_before_it_is_saved(score: float, stays: bool) -> None:
    assert Retention(best=2).would_stay(score, kept()) is stays
    assert Retention(best=2).would_stay(0.4, kept({100: 0.5})) is True


@settings(max_examples=200)
@given(
    st.dictionaries(st.integers(1, 60), st.none() | st.floats(0, 1), min_size=1, max_size=12),
    st.none() | st.integers(1, 4),
    st.none() | st.integers(1, 4),
    st.none() | st.integers(1, 20),
)
def test_thinning_out_as_one_goes_keeps_what_thinning_out_at_the_end_keeps(
    scores: dict[int, float | None], last: int | None, best: int | None, every: int | None
) -> None:
    """What goes early would not have stayed later: what is best, first or last among all is so among fewer."""
    retention = Retention(last=last, best=best, every=every)
    everything = kept(dict(sorted(scores.items())))
    held: list[Kept] = []
    for item in everything:
        held.append(item)
        spare = retention.spare(held, item.path, ())
        held = [one for one in held if one.path not in spare]
    at_once = retention.spare(everything, everything[-1].path, ())
    assert held == [item for item in everything if item.path not in at_once]


# On the disk


def test_only_what_this_run_wrote_goes(tmp_path: Path) -> None:
    earlier = make_store(tmp_path)
    for step in (1, 2):
        save(earlier, step)
    earlier.release()
    store = make_store(tmp_path, 1)
    for step in (3, 4):
        save(store, step)
    assert [path.name for path in store.prune()] == ["checkpoint-3"]
    assert steps(store) == [1, 2, 4]
    store.release()


def test_a_run_that_goes_on_takes_the_earlier_ones_for_its_own(tmp_path: Path) -> None:
    earlier = make_store(tmp_path)
    for step in (1, 2):
        save(earlier, step)
    earlier.release()
    store = make_store(tmp_path, 1)
    store.run = earlier.run
    save(store, 3)
    store.prune()
    assert steps(store) == [3]
    store.release()


def test_one_whose_manifest_is_damaged_is_not_deleted(tmp_path: Path) -> None:
    store = make_store(tmp_path, 1)
    folder = save(store, 1)
    (folder / "manifest.json").write_text("{}")
    for step in (2, 3):
        save(store, step)
    store.prune()
    assert steps(store) == [1, 3]
    store.release()
