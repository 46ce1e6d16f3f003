"""The trainer of sentence-transformers, unmodified: two sets with a loss each, hard negatives, an evaluator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.compat.clients.harness import Sides, assert_same, needs

needs("sentence_transformers", "datasets")

Both = Callable[[str], Sides]


@pytest.mark.parametrize("sampler", ["proportional", "round_robin"])
def test_two_losses_give_the_figures_of_the_original(both: Both, sampler: str) -> None:
    sides = both("sentences")

    names = {name for entry in sides.ours[sampler]["logs"] for name in entry}
    assert {"loss", "eval_triplets_loss", "eval_pairs_loss", "eval_spearman_cosine"} <= names
    assert_same(sides.stock[sampler], sides.ours[sampler], "resumed")


def test_a_loss_with_weights_of_its_own_is_trained_alike(both: Both) -> None:
    sides = both("sentences")
    assert_same(sides.stock["classified"], sides.ours["classified"])


def test_resuming_leaves_no_trace(both: Both) -> None:
    sides = both("sentences")
    resumed, logs = sides.ours["round_robin"]["resumed"], sides.ours["round_robin"]["logs"]

    assert_same(resumed, logs)
    assert_same(resumed, sides.stock["round_robin"]["resumed"], "train_loss")  # row C8


def test_what_was_trained_is_what_the_original_reads(both: Both, recwarn: Any) -> None:
    sides = both("sentences")
    from sentence_transformers import SentenceTransformer

    from tests.compat.clients.scripts.tiny import sentence

    model = SentenceTransformer(str(sides.folders["ours"] / "round_robin" / "final"), device="cpu")
    vectors = model.encode([sentence(1, 4), sentence(2, 4)]).tolist()

    assert vectors == sides.ours["round_robin"]["vectors"]
    assert (sides.folders["ours"] / "round_robin" / "checkpoint-4" / "modules.json").exists()


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["pairs", "made_anew", "student"])
def test_further_trainers_give_the_figures_of_the_original(both: Both, kind: str) -> None:
    needs("setfit")
    sides = both("encoders")
    assert_same(sides.stock[kind], sides.ours[kind])
