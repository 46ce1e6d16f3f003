"""Mutants that no test can notice, each with the reason."""

from __future__ import annotations

import re

# `is` is used here for None, booleans, enums and classes alone, where `==` says the same.
SINGLETONS = ("ReplaceComparisonOperator_Is_Eq", "ReplaceComparisonOperator_IsNot_NotEq")

# A file and a pattern of the changed lines, and why the change makes no difference.
EQUIVALENT = {
    ("", r"\+ *def .*[(,] ?/,"): "only how a caller may write an argument",
    ("", r"\+.* is (not )?(Interval|Save)Strategy\."): "words have become members, which exist once, before this",
    ("config/checks.py", r"total / unit, earlier"): "the division is exact, and 8.0 is 8 in a set",
    ("config/construction.py", r"one\.kind >= one\.VAR_KEYWORD"): "no kind of parameter comes after this one",
    ("config/options.py", r"values\[ ?-1\] if len\(values\) == 1"): "the first of one value is the last",
    ("config/options.py", r"\+_ORDER = .* str: (10|8)\}"): "any number above 3 puts strings last",
    ("config/place.py", r"device\.type > .cpu"): "no device of torch comes before cpu in the alphabet",
    ("training/evaluation.py", r"1 << holds_objects"): "one shifted by a boolean is one plus it",
    ("training/evaluation.py", r"\+ *(el)?if seen <= size and not"): "where they are equal it has returned before",
}


def reason(path: str, change: str) -> str | None:
    """Return why a change makes no difference, or None where it does."""
    found = (why for (file, part), why in EQUIVALENT.items() if path.endswith(file) and re.search(part, change))
    return next(found, None)
