"""ROUGE against what the package rouge-score gives, BLEU against torchmetrics, and how tokens become text."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.unit.metrics.batches import Words, batches, measure
from tests.unit.metrics.world import together
from torchmetrics.functional.text import rouge_score, sacre_bleu_score

from surestep.errors import DataError
from surestep.metrics.text import rouge

# Worked out once with the packages rouge-score 0.1.2 and seqeval 1.2.2.
REFERENCES = json.loads((Path(__file__).parent / "references.json").read_text())
READ = {"processing_class": Words()}
SAID = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [1, 8, 3, 0, 0, 0, 0], [5, 9, 10, 6, 0, 0, 0]])
WANTED = torch.tensor([[1, 2, 3, 4, 1, 6, 7], [1, 8, 3, 4, 1, 6, 7], [5, 10, 9, 6, -100, -100, -100]])
SIZES = [1, 2, 3]


def texts(tokens: torch.Tensor) -> list[str]:
    return Words().batch_decode([[token for token in row if token > 0] for row in tokens.tolist()])


@pytest.mark.parametrize(("said", "wanted", "figures"), REFERENCES["rouge"])
def test_one_text_is_measured_as_by_rouge_score(said: str, wanted: str, figures: dict[str, float]) -> None:
    assert rouge(said, wanted) == pytest.approx(figures, abs=1e-9)


def test_by_hand() -> None:
    # 3 of 4 words and 1 of 3 pairs are met; in order come "the", "sat", "on".
    figures = rouge("the dog sat on", "the cat sat on")

    assert figures == pytest.approx({"1": 0.75, "2": 1 / 3, "L": 0.75, "Lsum": 0.75})
    assert set(rouge("", "the cat").values()) == {0.0}


@pytest.mark.parametrize("size", SIZES)
def test_the_mean_over_samples(size: int) -> None:
    figures = measure("rouge", SAID, WANTED, size, **READ)
    theirs = rouge_score(texts(SAID), texts(WANTED), rouge_keys=("rouge1", "rouge2", "rougeL"))

    assert {name: theirs[f"{name}_fmeasure"].item() for name in ("rouge1", "rouge2", "rougeL")} == pytest.approx(
        {name: value for name, value in figures.items() if name != "rougeLsum"}, rel=1e-6
    )
    assert figures["rougeLsum"] == pytest.approx(figures["rougeL"])


@pytest.mark.parametrize("size", SIZES)
def test_bleu_is_that_of_the_corpus(size: int) -> None:
    expected = sacre_bleu_score(texts(SAID), [[text] for text in texts(WANTED)], tokenize="13a").item()

    assert expected > 0
    assert measure("bleu", SAID, WANTED, size, **READ) == {"bleu": pytest.approx(expected, rel=1e-6)}


def test_bleu_without_a_run_of_four_is_nothing() -> None:
    assert measure("bleu", SAID[1:], WANTED[1:], **READ) == {"bleu": 0.0}


def test_of_logits_the_likeliest_tokens_are_read_where_a_label_counts() -> None:
    logits = torch.nn.functional.one_hot(SAID, len(Words.words)).float()
    where = torch.where(WANTED == -100, 0, SAID)

    assert measure("rouge", logits, WANTED, **READ) == pytest.approx(measure("rouge", where, WANTED, **READ))


@pytest.mark.parametrize("name", ["rouge", "bleu", "squad"])
def test_text_needs_a_tokenizer(name: str) -> None:
    with pytest.raises(DataError, match="processing_class has no batch_decode"):
        measure(name, SAID, WANTED)


def test_the_tokenizer_of_a_processor_is_found() -> None:
    figures = measure("rouge", SAID, WANTED, processing_class=SimpleNamespace(tokenizer=Words()))

    assert figures == measure("rouge", SAID, WANTED, **READ)


@pytest.mark.parametrize("size", SIZES)
def test_generated_answers(size: int) -> None:
    figures = measure("squad", SAID, WANTED, size, **READ)
    # Without articles: "cat sat on mat" twice; "dog sat" of "dog sat on mat"; "red big mat" of "big red mat".
    expected = {"squad_exact_match": 1 / 3, "squad_f1": (1 + 2 * (1 * 0.5) / 1.5 + 1) / 3}

    assert figures == pytest.approx(expected)


def test_answers_that_labels_point_out() -> None:
    tokens = torch.tensor([[0, 1, 2, 3, 4, 6], [0, 8, 9, 10, 2, 6], [0, 1, 2, 3, 4, 6]])
    start, end = torch.full((3, 6), -9.0), torch.full((3, 6), -9.0)
    # "cat sat", right; "dog" where "dog red" is right; none, and rightly so.
    for row, (first, last) in enumerate([(2, 3), (1, 1), (0, 0)]):
        start[row, first], end[row, last] = 5.0, 5.0
    # An end before the start is no answer, however likely.
    end[0, 1] = 7.0
    labels = (torch.tensor([2, 1, 0]), torch.tensor([3, 2, 0]))
    figures = measure("squad", (start, end), labels, 2, inputs={"input_ids": tokens}, **READ)

    assert figures == pytest.approx({"squad_exact_match": 2 / 3, "squad_f1": (1 + 2 / 3 + 1) / 3})


def test_answers_need_the_tokens_they_are_read_from() -> None:
    one: Any = torch.zeros(2, 4)
    with pytest.raises(DataError, match="under 'input_ids'"):
        measure("squad", (one, one), (torch.zeros(2).long(), torch.zeros(2).long()), **READ)


def test_nothing_said_is_no_infinity() -> None:
    figures = measure("bleu", torch.zeros(2, 3).long(), WANTED[:2], **READ)

    assert figures == {"bleu": 0.0}
    assert not math.isnan(figures["bleu"])


@pytest.mark.parametrize("asked", [["rouge"], ["bleu"], ["squad"]], ids=str)
def test_ranks_give_what_one_process_gives(asked: list[str]) -> None:
    parts = list(batches(SAID, WANTED, 1))

    for found in together(asked, [parts[:2], [], parts[2:]], **READ):
        assert found == pytest.approx(measure(asked, SAID, WANTED, **READ), rel=1e-12)
