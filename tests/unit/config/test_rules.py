"""What a setting may hold, in words and in effect."""

import dataclasses
import math
import re

import numpy as np
import pytest

from surestep.config.enums import IntervalStrategy
from surestep.config.rules import Choice, Flag, Member, Names, Number, Settings, Text, plain, whole
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


@pytest.mark.parametrize(("value", "expected"), [(np.int64(3), 3), (np.float32(0.5), 0.5), (np.array(2), 2), (7, 7)])
def test_numpys_numbers_become_pythons(value, expected):
    assert plain(value) == expected
    assert type(plain(value)) is type(expected)


@pytest.mark.parametrize("value", [np.array([1, 2]), np.add, np.int64, "text", None])
def test_what_is_no_single_number_stays_as_it_is(value):
    assert plain(value) is value


@pytest.mark.parametrize(
    "rule", [Flag(), Number(), Text(), Choice(("a", "b")), Member(IntervalStrategy), Names(), Settings()]
)
def test_a_rule_is_shared_and_so_nobody_changes_it(rule):
    field = dataclasses.fields(rule)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(rule, field, None)
    assert rule == dataclasses.replace(rule)


@pytest.mark.parametrize(
    ("rule", "value", "message"),
    [
        (Choice(("linear", "cosine")), "cosin", "setting='cosin'.* one of linear, cosine.*cosine"),
        (Choice(("linear",), optional=True), 3, "setting=3.* one of linear, None"),
        (Choice(("linear",)), None, "setting=None.* one of linear"),
        (Text(), 3, "setting=3.* a string.* setting='3'"),
        (Text(optional=True), 3, "setting=3.* a string or None"),
        (Names(), "a", r"setting='a'.* a list of strings.* setting=\["),
        (Names(), None, "setting=None.* a list of strings"),
        (Names(), ["a", 3], "a list of strings"),
        (Names(("loss", "inputs")), ["loss", "input"], "a list of loss, inputs.*Did you mean 'inputs'"),
        (Settings(), 3, "setting=3.* a dictionary or a JSON object as a string.*Write for example setting={'key': 1}"),
        (Settings(path=True), 3, "as a string, or the path of a JSON file"),
        (Settings(), "{a", "a JSON object.*It does not parse"),
    ],
)
def test_what_a_rule_refuses_is_answered(rule, value, message):
    with pytest.raises(ArgumentError, match=message):
        rule("setting", value)


@pytest.mark.parametrize(
    ("rule", "value", "taken"),
    [
        (Text(optional=True), None, None),
        (Names(optional=True), None, None),
        (Names(one=True), "a", "a"),
        (Names(), ("a", "b"), ["a", "b"]),
        (Names(("a", "b")), [], []),
        (Choice(("a",), optional=True), None, None),
        (Member(IntervalStrategy), False, IntervalStrategy.NO),
        (
            Settings(),
            ' {"a": "True", "b": "12", "c": "0.5", "d": "1e3", "e": {"f": "x", "g": 2}}',
            {"a": True, "b": 12, "c": 0.5, "d": "1e3", "e": {"f": "x", "g": 2}},
        ),
        (Settings(), {"a": "12"}, {"a": "12"}),
        (Settings(path=True), "a.json", "a.json"),
    ],
)
def test_what_a_rule_takes(rule, value, taken):
    assert rule("setting", value) == taken
