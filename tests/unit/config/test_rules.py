"""What a setting may hold, in words and in effect."""

import math
import re

import pytest

from surestep.config.rules import Number, whole
from surestep.errors import ArgumentError


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Number(), "a number"),
        (Number(low=0), "a number of at least 0"),
        (Number(low=0, above_low=True), "a number above 0"),
        (Number(high=1), "a number at most 1"),
        (Number(high=1, below_high=True), "a number below 1"),
        (Number(low=-2.5, high=1e9), "a number of at least -2.5 and at most 1e+09"),
        (Number(low=0, high=1, above_low=True, below_high=True), "a number above 0 and below 1"),
        (Number(low=0, optional=True), "a number of at least 0 or None"),
        (whole(), "a whole number"),
        (whole(1), "a whole number of at least 1"),
        (whole(at_most=7), "a whole number at most 7"),
        (whole(0, 7, optional=True), "a whole number of at least 0 and at most 7 or None"),
    ],
)
def test_a_rule_says_what_it_wants(rule, words):
    assert rule.wants == words
    with pytest.raises(ArgumentError, match=f"setting='words'.* {re.escape(words)}"):
        rule("setting", "words")


@pytest.mark.parametrize(
    ("rule", "taken", "refused"),
    [
        (Number(), [-1e300, 0, 3.5], [math.inf, -math.inf, math.nan, True, None]),
        (Number(infinite=True), [math.inf, -math.inf], [math.nan]),
        (Number(low=0, high=1), [0, 0.5, 1], [-1e-9, 1.0001]),
        (Number(low=0, high=1, above_low=True, below_high=True), [1e-9, 0.999], [0, 1]),
        (whole(1, 3), [1, 2, 3], [0, 4, 1.5]),
        (whole(optional=True), [None, -5], [0.5]),
    ],
)
def test_a_number_within_its_bounds_is_taken(rule, taken, refused):
    assert [rule("setting", value) for value in taken] == taken
    for value in refused:
        with pytest.raises(ArgumentError, match="setting"):
            rule("setting", value)


def test_a_whole_number_written_with_a_point_becomes_one():
    assert type(whole(1)("setting", 8.0)) is int
    assert type(Number()("setting", 8.0)) is float
