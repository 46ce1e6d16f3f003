"""SetFit, unmodified: its trainer replaces how callbacks are called, and trains sentence-transformers' underneath."""

from __future__ import annotations

from collections.abc import Callable

from tests.compat.clients.harness import Sides, assert_same, needs

needs("setfit", "datasets")

Both = Callable[[str], Sides]


def test_few_shots_give_the_figures_of_the_original(both: Both) -> None:
    sides = both("few_shot")

    assert [entry["step"] for entry in sides.ours["logs"] if "embedding_loss" in entry] == [1, 2, 4, 6, 8]
    assert_same(sides.stock, sides.ours)


def test_callbacks_are_told_of_its_model_and_arguments(both: Both) -> None:
    assert both("few_shot").ours["steps"] == [f"TrainingArguments SetFitModel {step}" for step in range(1, 9)]


def test_what_was_trained_is_what_the_original_reads(both: Both) -> None:
    sides = both("few_shot")
    from setfit import SetFitModel

    from tests.compat.clients.scripts.few_shot import rows

    model = SetFitModel.from_pretrained(str(sides.folders["ours"] / "final"))
    assert model.predict_proba(rows(60, 4)["text"]).tolist() == sides.ours["predicted"]
