"""The budget of a step: Python calls beside the mathematics. Time is for `python -m benchmarks.overhead`."""

from __future__ import annotations

import pytest
from benchmarks.overhead import by_hand, calls_per_step, ours


@pytest.mark.timeout(120)
def test_a_step_costs_at_most_a_quarter_more_calls_than_one_by_hand() -> None:
    hand, here = calls_per_step(by_hand), calls_per_step(ours)

    # The loop by hand reads the loader that the trainer made, so that the data counts for nothing in the ratio.
    assert here <= 1.25 * hand, f"{here:.0f} calls a step against {hand:.0f} by hand"
    # Once something in the process has loaded the compiler, torch itself makes a dozen more calls, for both alike.
    assert here - hand <= 62, f"{here:.0f} calls a step against {hand:.0f} by hand"
