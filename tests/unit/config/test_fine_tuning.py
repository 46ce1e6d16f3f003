"""Rules by parameter name and kinds of clipping, as arguments."""

import dataclasses
import json

import numpy as np
import pytest

from surestep.config.arguments import TrainingArguments
from surestep.config.parser import HfArgumentParser
from surestep.errors import ArgumentError

RULES = [
    {"pattern": r"^encoder\.", "learning_rate_scale": 0.1},
    {"pattern": "embed", "freeze": True},
    {"pattern": "head", "learning_rate": 1e-3, "weight_decay": 0.0},
    {"pattern": "rest", "freeze": False},
]


@pytest.mark.parametrize("given", [RULES, tuple(RULES), json.dumps(RULES), f"  {json.dumps(RULES, indent=1)}"])
def test_rules_take_one_form(given):
    args = TrainingArguments("out", parameter_rules=given)
    assert args.parameter_rules == RULES
    args.validate_parameters()
    assert args.parameter_rules == RULES


def test_numbers_of_numpy_become_plain():
    (rule,) = TrainingArguments(
        "out", parameter_rules=[{"pattern": "a", "learning_rate": np.float32(0.5)}]
    ).parameter_rules
    assert type(rule["learning_rate"]) is float


def test_a_pattern_that_reads_as_a_number_stays_text():
    args = TrainingArguments("out", parameter_rules='[{"pattern": "3", "freeze": true}]')
    assert args.parameter_rules == [{"pattern": "3", "freeze": True}]


def test_rules_from_the_command_line():
    words = ["--parameter_rules", json.dumps(RULES), "--max_grad_value", "0.5"]
    (args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(words, look_for_args_file=False)
    assert args.parameter_rules == RULES
    assert args.max_grad_value == 0.5


@pytest.mark.parametrize(
    "given",
    [
        {"parameter_rules": RULES},
        {"max_grad_value": 0.5},
        {"max_grad_value": 0.5, "max_grad_norm": 0.0},
        {"adaptive_clip_ratio": 0.01},
    ],
    ids=str,
)
def test_copies_hold_the_same_and_are_no_contradiction(tmp_path, given):
    args = TrainingArguments("out", **given)
    args.save_json(tmp_path / "args.json")
    assert TrainingArguments.load_json(tmp_path / "args.json") == args
    assert dataclasses.replace(args) == args


@pytest.mark.parametrize("name", ["max_grad_value", "adaptive_clip_ratio"])
def test_a_norm_written_afterwards_contradicts_too(name):
    args = TrainingArguments("out", **{name: 0.5})
    args.max_grad_norm = 2.0
    with pytest.raises(ArgumentError, match=f"max_grad_norm=2.0 and {name}=0.5"):
        args.validate_parameters()
    args.max_grad_norm = 0
    args.validate_parameters()
