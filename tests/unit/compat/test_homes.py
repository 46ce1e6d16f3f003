"""The table of names: every home holds its name, and no name has two answers."""

from __future__ import annotations

import importlib

import pytest
from tests.unit.compat.names import public_names

from surestep.compat.homes import HOMES, KEPT, MOVED, REFUSED, offered, reason

HOMED = sorted((module, name, home) for module, names in HOMES.items() for name, home in names.items())


@pytest.mark.parametrize(("module", "name", "home"), HOMED, ids=lambda value: str(value).rpartition(".")[2])
def test_a_home_holds_its_name(module: str, name: str, home: str) -> None:
    assert hasattr(importlib.import_module(home), name), f"{home} has no {name}, which {module} has"


def test_what_has_moved_in_the_original_is_where_it_is_said_to_be() -> None:
    moved = [(name, home) for names in MOVED.values() for name, home in names.items()]

    assert [(name, home) for name, home in moved if not hasattr(importlib.import_module(home), name)] == []
    assert MOVED.keys() <= HOMES.keys()


def test_a_name_has_one_answer() -> None:
    answers = [(module, name) for table in (HOMES, KEPT, REFUSED, MOVED) for module in table for name in table[module]]

    assert len(answers) == len(set(answers))


def test_modules_with_reasons_are_served_modules() -> None:
    assert {*KEPT, *REFUSED} <= HOMES.keys()


def test_a_name_of_two_modules_has_one_home() -> None:
    homes = offered()

    assert [(module, name) for module, name, home in HOMED if homes[name] != home] == []


@pytest.mark.parametrize("module", HOMES)
def test_every_name_of_the_original_has_an_answer(module: str) -> None:
    answered = {*HOMES[module], *KEPT.get(module, ()), *REFUSED.get(module, ())}

    assert [name for name in public_names(module) if name not in answered] == []


def test_no_reason_outlives_its_name() -> None:
    reasons = [(module, name) for table in (KEPT, REFUSED) for module in table for name in table[module]]

    assert [(module, name) for module, name in reasons if name not in public_names(module)] == []


def test_what_is_not_offered_is_explained() -> None:
    assert reason("Trainer") is None
    assert reason("nothing of the kind") is None
    assert reason("ParallelismConfig") == (
        "transformers.training_args.ParallelismConfig is not offered here: it is accelerate's own class; import it "
        "from accelerate.parallelism_config."
    )
