"""Intervals in steps, and as shares of a run."""

import pytest

from surestep.config.steps import check_interval, whole_interval


@pytest.mark.parametrize(
    ("given", "kept"), [(10, 10), (10.0, 10), (2.0, 2), (1.5, 1.5), (1.0, 1.0), (1, 1), (0.25, 0.25), (0, 0)]
)
def test_an_interval_of_whole_steps_is_a_whole_number(given, kept):
    assert whole_interval(given) == kept
    assert type(whole_interval(given)) is type(kept)


@pytest.mark.parametrize("given", [0.001, 0.25, 1, 1.0, 2, 2.0, 500])
def test_what_an_interval_may_be(given):
    assert list(check_interval("save_steps", given, "leave it out")) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (0, "save_steps=0 cannot be right: it must be above 0. Write the steps between two times, or leave it out."),
        (
            2.5,
            "save_steps=2.5 cannot be right: it must be a whole number of steps, or a fraction below 1. "
            "Write 2, or for example 0.1 for a tenth of the run.",
        ),
    ],
)
def test_what_an_interval_cannot_be(given, message):
    assert list(check_interval("save_steps", given, "leave it out")) == [message]
