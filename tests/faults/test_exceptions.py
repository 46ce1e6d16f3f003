"""An exception in training: the last complete step is saved where all of it is still there, and goes on exactly."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Reference
from tests.faults.stage import LATE, Stage
from tests.faults.test_signals import check_goes_on, said, saved


@pytest.mark.parametrize(
    ("point", "count", "step", "settings"),
    [
        ("forward", 8, 3, {}),
        ("forward", 14, 7, {}),
        ("loading", 60, 4, {}),
        # The first batch of the second epoch.
        ("loading", 67, 6, {}),
        ("evaluating", 8, 3, {}),
        # The second set of the last evaluation, at the end of the last epoch.
        ("evaluating", 39, 12, {}),
        ("forward", 8, 3, {"nonfinite": "skip"}),
        ("forward", 8, 3, {"dataloader_num_workers": 1}),
    ],
)
def test_the_last_complete_step_is_saved(
    point: str, count: int, step: int, settings: dict[str, Any], stage: Stage, reference: Reference, tmp_path: Path
) -> None:
    case = {"point": point, "count": count, "signals": [], "raises": True, "settings": settings}
    assert stage.run(tmp_path, case=case) == [1]
    assert f"RuntimeError after step {step}; this step is saved." in said(tmp_path)
    assert f"planted at {point}" in said(tmp_path)
    assert saved(tmp_path)[-1] == step
    check_goes_on(stage, tmp_path, reference(), settings=settings)


@pytest.mark.parametrize(
    ("point", "count", "case", "why"),
    [
        ("step_end", 3, {}, "it came from on_step_end"),
        ("updating", 3, {}, "the update of the next step was begun"),
        ("saving", 1, {}, "it came while the step was being logged or saved"),
        ("forward", 8, {"settings": {"nonfinite": "ignore"}}, "buffers of the model, or metrics of training"),
        ("forward", 8, {"draws": True}, "python's or NumPy's generator may have been drawn from"),
        ("forward", 8, {"hears": True}, "Hears, which has a memory, has heard of the step"),
    ],
)
def test_what_is_no_longer_whole_is_not_saved(
    point: str, count: int, case: dict[str, Any], why: str, stage: Stage, tmp_path: Path
) -> None:
    planted = {"point": point, "count": count, "signals": [], "raises": True, **case}
    assert stage.run(tmp_path, case=planted) == [1]
    assert f"nothing is saved, because {why}" in said(tmp_path)
    assert saved(tmp_path) == []


@pytest.mark.parametrize("settings", [{"save_on_exception": False}, {"save_strategy": "no"}])
def test_where_it_is_not_wanted_nothing_is_done(settings: dict[str, Any], stage: Stage, tmp_path: Path) -> None:
    case = {"point": "forward", "count": 8, "signals": [], "raises": True, "settings": settings}
    assert stage.run(tmp_path, case=case) == [1]
    assert saved(tmp_path) == []
    assert "after step" not in said(tmp_path)


def test_before_the_first_step_there_is_nothing_to_save(stage: Stage, tmp_path: Path) -> None:
    assert stage.run(tmp_path, case={"point": "forward", "count": 2, "signals": [], "raises": True}) == [1]
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("point", "count", "failing", "settings"),
    [
        ("forward", 8, [0, 1], {}),
        ("loading", 20, [0, 1], {}),
        # What fails on one rank in an evaluation fails on all.
        ("evaluating", 2, [1], {}),
        ("evaluating", 2, [0, 1], {"dataloader_num_workers": 1}),
    ],
)
def test_ranks_that_fail_alike_save_together(
    point: str,
    count: int,
    failing: list[int],
    settings: dict[str, Any],
    stage: Stage,
    reference: Reference,
    tmp_path: Path,
) -> None:
    planted = {"point": point, "count": count, "signals": [], "raises": True, "ranks": failing, "settings": settings}
    assert stage.run(tmp_path, 2, case=planted) == [1, 1], said(tmp_path)
    assert "after step 3; this step is saved." in said(tmp_path)
    assert saved(tmp_path) == [3]
    check_goes_on(stage, tmp_path, reference(2), 2, settings=settings)


@pytest.mark.parametrize(
    ("point", "count", "why"),
    [
        ("forward", 8, "rank 0 has not failed within 0.2 s: it is in the middle of a step, or gone"),
        ("loading", 20, "rank 0 has not failed within 0.2 s"),
        ("updating", 3, "the update of the next step was begun"),
    ],
)
def test_an_exception_on_one_rank_ends_the_others_and_saves_nothing(
    point: str, count: int, why: str, stage: Stage, tmp_path: Path
) -> None:
    """The others wait for it in an exchange, which it cannot join any more."""
    case = {"point": point, "count": count, "signals": [], "raises": True, "ranks": [1], "patience_over_ranks": 0.2}
    codes = stage.run(tmp_path, 2, case=case, seconds=40)
    assert codes[1] == 1
    assert codes[0] not in (0, LATE, -signal.SIGKILL), said(tmp_path)
    assert f"nothing is saved, because {why}" in said(tmp_path, 1)
    assert "nothing is saved, because an exchange with the other processes has broken off" in said(tmp_path)
    assert saved(tmp_path) == []
    assert not (tmp_path / "end.json").exists()


def test_a_program_that_takes_the_loop_apart_keeps_what_it_had(stage: Stage, tmp_path: Path) -> None:
    """An error of the caller's own, between two steps, is none of the run's."""
    assert stage.run(tmp_path, case={"by_hand": 3}) == [1]
    assert "it was raised between two steps, outside of the loop" in said(tmp_path)
    assert json.dumps(saved(tmp_path)) == "[]"
