"""Warnings that were caught."""

from __future__ import annotations

import warnings
from collections.abc import Sequence


def reissue_pt_warnings(caught_warnings: Sequence[warnings.WarningMessage]) -> None:
    """Warn again of what was caught, torch's own user warnings left out; a single warning is left out as well."""
    if len(caught_warnings) > 1:
        for caught in caught_warnings:
            if caught.category is not UserWarning:
                warnings.warn(caught.message, caught.category, stacklevel=2)
