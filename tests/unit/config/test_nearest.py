"""Which name was probably meant."""

from __future__ import annotations

import pytest

from surestep.config.enums import OptimizerNames
from surestep.config.nearest import did_you_mean, nearest


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("leraning_rate", ["learning_rate", "max_steps"], "learning_rate"),
        ("Learning-Rate", ["learning_rate"], "learning_rate"),
        # What goes on where the name ends comes before what looks alike, and the first of them before others.
        ("adamw", ["adam", "adamw_torch", "adamw_8bit"], "adamw_torch"),
        ("eval", ["val", "eval_steps"], "eval_steps"),
        ("Cosine", ["cosine_with_restarts", "cosine"], "cosine"),
        ("", ["_private"], None),
        ("nothing_alike", ["learning_rate"], None),
        ("x", [], None),
    ],
)
def test_the_nearest_name(name: str, known: list[str], meant: str | None) -> None:
    assert nearest(name, known) == meant
    assert did_you_mean(name, known) == ("" if meant is None else f" Did you mean {meant!r}?")


def test_what_was_probably_meant_comes_before_a_long_list() -> None:
    assert OptimizerNames.offer("adamw").startswith("Did you mean 'adamw_torch'? Write one of: adamw_torch, ")
    assert OptimizerNames.offer("?").startswith("Write one of: ")
