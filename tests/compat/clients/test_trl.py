"""TRL's trainers, unmodified: the same figures as on the original, and resume without a trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.compat.clients.harness import Sides, assert_same, needs

needs("trl", "datasets")

Both = Callable[[str], Sides]
# TRL counts tokens in an attribute of its own, which no checkpoint holds.
_COUNT = "num_tokens"
_EVAL_COUNT = "eval_num_tokens"


@pytest.mark.parametrize("rows", ["padded", "packed", "adapter"])
def test_fine_tuning_gives_the_figures_of_the_original(both: Both, rows: str) -> None:
    sides = both("sft")

    assert len([entry for entry in sides.ours[rows]["logs"] if "loss" in entry]) == 6
    for what in ("logs", "evaluated"):
        assert_same(sides.stock[rows][what], sides.ours[rows][what])


@pytest.mark.parametrize("rows", ["padded", "packed", "adapter"])
def test_fine_tuning_resumes_without_a_trace(both: Both, rows: str) -> None:
    sides = both("sft")

    assert_same(sides.ours[rows]["resumed"], sides.ours[rows]["logs"], _COUNT, _EVAL_COUNT)
    assert_same(sides.ours[rows]["resumed"], sides.stock[rows]["resumed"], "train_loss")  # row C8


def test_packing_makes_other_batches(both: Both) -> None:
    padded, packed = (both("sft").ours[rows]["logs"][0]["num_tokens"] for rows in ("padded", "packed"))
    assert padded != packed


@pytest.mark.parametrize("rows", ["reference", "precomputed", "adapter"])
def test_preferences_give_the_figures_of_the_original(both: Both, rows: str) -> None:
    sides = both("dpo")

    assert "rewards/margins" in sides.ours[rows]["logs"][0]
    for what in ("logs", "evaluated"):
        assert_same(sides.stock[rows][what], sides.ours[rows][what])


def test_preferences_resume_without_a_trace(both: Both) -> None:
    seen = both("dpo").ours["reference"]
    assert_same(seen["resumed"], seen["logs"], _COUNT, _EVAL_COUNT)


@pytest.mark.parametrize(("script", "rows"), [("sft", "padded"), ("sft", "packed"), ("dpo", "reference")])
def test_what_was_trained_is_what_the_original_reads(both: Both, script: str, rows: str) -> None:
    from transformers import AutoModelForCausalLM

    sides = both(script)
    weights = {side: load_file(folder / rows / "final" / "model.safetensors") for side, folder in sides.folders.items()}
    loaded: Any = AutoModelForCausalLM.from_pretrained(str(sides.folders["ours"] / rows / "final")).state_dict()

    assert weights["ours"].keys() == weights["stock"].keys()
    for name, value in weights["stock"].items():
        assert value.equal(weights["ours"][name])
        assert value.equal(loaded[name])
    assert (sides.folders["ours"] / rows / "README.md").exists()  # TRL writes it when it saves a checkpoint


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["reward_model", "unpaired", "generated", "chats"])
def test_further_trainers_give_the_figures_of_the_original(both: Both, kind: str) -> None:
    sides = both("rewards")
    assert_same(sides.stock[kind], sides.ours[kind], "step_time")
