"""What becomes of settings that stand together."""

from __future__ import annotations

from typing import Any

import pytest

from surestep.compat.migrate.settings import UNKNOWN, fates, looks_like_settings
from surestep.config.aliases import ALIASES, NOTHING
from surestep.config.arguments import TrainingArguments


def spelled(**items: Any) -> dict[str, Any]:
    """Return settings in today's spelling; what is left is not among them."""
    found = {}
    for (name, value), fate in zip(items.items(), fates(list(items.items())), strict=True):
        if fate is None:
            found[name] = value
        elif fate.name and not fate.problem:
            found[fate.name] = value if fate.value is NOTHING else fate.value
    return found


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"evaluation_strategy": "epoch"}, {"eval_strategy": "epoch"}),
        ({"evaluate_during_training": True}, {"eval_strategy": "steps"}),
        ({"evaluate_during_training": False}, {}),
        ({"warmup_ratio": 0.1}, {"warmup_steps": 0.1}),
        ({"warmup_ratio": 0.1, "warmup_steps": 0}, {"warmup_steps": 0.1}),
        ({"warmup_ratio": 0.0, "warmup_steps": 5}, {"warmup_steps": 5}),
        ({"no_cuda": True, "use_cpu": True}, {"use_cpu": True}),
        ({"lr_scheduler": "cosine_w_restarts"}, {"lr_scheduler_type": "cosine_with_restarts"}),
        ({"optim": "adamw_hf"}, {"optim": "adamw_torch"}),
        ({"save_steps": -1}, {"save_strategy": "no"}),
        ({"overwrite_output_dir": True}, {}),
        ({"overwrite_output_dir": UNKNOWN}, {}),
        ({"evaluation_strategy": UNKNOWN}, {"eval_strategy": UNKNOWN}),
        ({"fp16_backend": "auto"}, {}),
        (
            {"dispatch_batches": True, "split_batches": True},
            {"accelerator_config": {"dispatch_batches": True, "split_batches": True}},
        ),
        ({"gradient_checkpointing": True}, {"activation_checkpointing": True}),
        ({"gradient_checkpointing": None}, {"gradient_checkpointing": None}),
        ({"eval_strategy": "steps", "learning_rate": 0.1}, {"eval_strategy": "steps", "learning_rate": 0.1}),
    ],
)
def test_settings_in_todays_spelling(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert spelled(**given) == expected


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"fp16_backend": "apex"}, "apex"),
        ({"evaluate_during_training": UNKNOWN}, "its value is not written out, and it is a matter of eval_strategy"),
        ({"model_parallel": UNKNOWN}, "its value is not written out, and it is gone"),
        ({"no_cuda": True, "use_cpu": False}, "Write use_cpu alone"),
        ({"evaluation_strategy": UNKNOWN, "eval_strategy": "no"}, "Write eval_strategy alone"),
        ({"dispatch_batches": True, "accelerator_config": {"even_batches": True}}, "Write accelerator_config alone"),
        ({"warmup_ratio": 2.0}, "below 1"),
    ],
)
def test_what_is_left_says_why(given: dict[str, Any], why: str) -> None:
    problems = [fate.problem for fate in fates(list(given.items())) if fate is not None and fate.problem]
    assert len(problems) == 1
    assert why in problems[0]


@pytest.mark.parametrize("name", ALIASES)
@pytest.mark.parametrize("value", [True, False, None, "epoch", 0.1, 1, UNKNOWN])
def test_today_is_the_end(name: str, value: Any) -> None:
    """What was brought to today's spelling is not changed again."""
    once = spelled(**{name: value})
    assert spelled(**once) == once
    assert not {alias for alias in once if alias in ALIASES and once[alias] is not None}


def test_the_settings_are_the_ones_that_the_arguments_take_the_old_ones_for() -> None:
    old = {"evaluation_strategy": "epoch", "warmup_ratio": 0.1, "no_cuda": True, "group_by_length": True}
    with pytest.warns(FutureWarning):
        taken = TrainingArguments("out", **old)
    assert taken.to_dict() == TrainingArguments("out", **spelled(**old)).to_dict()


def test_a_mapping_is_known_by_two_names() -> None:
    assert looks_like_settings(["output_dir", "no_cuda", "mine"])
    assert not looks_like_settings(["label_smoothing", "mine"])
