"""Mutants that no test can notice, each with the reason."""

from __future__ import annotations

import re

# `is` is used here for None, booleans, enums and classes alone, where `==` says the same.
SINGLETONS = ("ReplaceComparisonOperator_Is_Eq", "ReplaceComparisonOperator_IsNot_NotEq")

# A file and a pattern of the changed lines, and why the change makes no difference.
EQUIVALENT = {
    ("", r"\+ +def .*[(,] ?/,"): "only how a caller may write an argument",
}


def reason(path: str, change: str) -> str | None:
    """Return why a change makes no difference, or None where it does."""
    found = (why for (file, part), why in EQUIVALENT.items() if path.endswith(file) and re.search(part, change))
    return next(found, None)
