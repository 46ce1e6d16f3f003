"""No name of any release of the original is forgotten: each is a setting of today, taken, or answered."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import Any

import pytest
from tests.unit.config.releases import FILE

from surestep import Trainer
from surestep.config.aliases import ALIASES, NoEffect, Refused, Renamed
from surestep.config.arguments import Seq2SeqTrainingArguments
from surestep.trainer.older_names import OLD_ARGUMENTS
from surestep.training.state import TrainerState

RELEASES: dict[str, Any] = json.loads(FILE.read_text())
TODAY = {field.name for field in dataclasses.fields(Seq2SeqTrainingArguments)}
GENERATIONS = {version.split(".")[0] for version in RELEASES["versions"]}


def test_the_releases_reach_from_the_first_generation_to_today() -> None:
    assert {"3", "4", "5"} == GENERATIONS
    assert RELEASES["versions"][-1] == "5.23.0"
    assert len(RELEASES["versions"]) > 30


@pytest.mark.parametrize("name", [*RELEASES["TrainingArguments"], *RELEASES["Seq2SeqTrainingArguments"]])
def test_every_setting_of_every_release_has_an_answer(name: str) -> None:
    if name in TODAY:
        return
    alias = ALIASES[name]
    match alias:
        case Renamed():
            assert alias.to in TODAY
        case NoEffect():
            assert alias.why
        case Refused():
            assert alias.instead
        case _:
            pytest.fail(f"{name} is an alias of no known kind")


@pytest.mark.parametrize("name", ALIASES)
def test_no_alias_is_made_up(name: str) -> None:
    # Of the example scripts, and of an option of transformers' models.
    elsewhere = {"predict_from_generate", "label_smoothing", "lr_scheduler", "model_parallel"}
    assert name in {*RELEASES["TrainingArguments"], *RELEASES["Seq2SeqTrainingArguments"], *elsewhere}


@pytest.mark.parametrize("name", RELEASES["Trainer"])
def test_every_argument_of_the_trainer_has_an_answer(name: str) -> None:
    assert name in inspect.signature(Trainer.__init__).parameters or name in OLD_ARGUMENTS


@pytest.mark.parametrize("name", RELEASES["TrainerState"])
def test_every_key_of_a_state_is_read(name: str) -> None:
    assert name in {field.name for field in dataclasses.fields(TrainerState)}
