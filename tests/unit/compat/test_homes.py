"""The table of names: every home holds its name, and no name has two answers."""

from __future__ import annotations

import importlib

import pytest

from surestep.compat.homes import HOMES, KEPT, REFUSED, offered

HOMED = sorted((module, name, home) for module, names in HOMES.items() for name, home in names.items())


@pytest.mark.parametrize(("module", "name", "home"), HOMED, ids=lambda value: str(value).rpartition(".")[2])
def test_a_home_holds_its_name(module: str, name: str, home: str) -> None:
    assert hasattr(importlib.import_module(home), name), f"{home} has no {name}, which {module} has"


def test_a_name_has_one_answer() -> None:
    answers = [(module, name) for table in (HOMES, KEPT, REFUSED) for module in table for name in table[module]]

    assert len(answers) == len(set(answers))


def test_modules_with_reasons_are_served_modules() -> None:
    assert {*KEPT, *REFUSED} <= HOMES.keys()


def test_a_name_of_two_modules_has_one_home() -> None:
    homes = dict(offered())

    assert [(module, name) for module, name, home in HOMED if homes[name] != home] == []
