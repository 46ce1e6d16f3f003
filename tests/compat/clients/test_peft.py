"""Adapters of PEFT under a script written for the original: saved, resumed, merged."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.compat.clients.harness import Sides, assert_same, needs

needs("peft", "datasets", "transformers")

Both = Callable[[str], Sides]


def test_an_adapter_gives_the_figures_of_the_original(both: Both) -> None:
    sides = both("lora")

    assert sides.ours["files"] == ["adapter_model.safetensors"]
    assert_same(sides.stock, sides.ours, "resumed")


def test_an_adapter_resumes_without_a_trace(both: Both) -> None:
    sides = both("lora")

    assert_same(sides.ours["resumed"], sides.ours["logs"])
    assert_same(sides.ours["resumed"], sides.stock["resumed"], "train_loss")  # row C8


def test_merging_changes_no_answer(both: Both) -> None:
    seen = both("lora").ours
    assert seen["merged"] == pytest.approx(seen["trained"], rel=1e-4, abs=1e-5)


def test_what_was_merged_is_what_the_original_reads(both: Both) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from tests.compat.clients.scripts.tiny import sentence, tokenizer

    sides = both("lora")
    model = AutoModelForCausalLM.from_pretrained(str(sides.folders["ours"] / "merged"))
    words = tokenizer()(sentence(3, 8), return_tensors="pt")["input_ids"]
    with torch.no_grad():
        answer = model(words).logits[0, -1].tolist()
    assert answer == sides.ours["merged"]
