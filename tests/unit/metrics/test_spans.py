"""Spans by hand, and against what the package seqeval gives."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.unit.metrics.batches import measure
from tests.unit.metrics.test_text import REFERENCES

from surestep.errors import ArgumentError, DataError
from surestep.metrics.spans import SpanF1, spans

NAMED = REFERENCES["seqeval"]


@pytest.mark.parametrize(("scheme", "tags", "found"), REFERENCES["spans"])
def test_spans_are_those_of_seqeval(scheme: str, tags: str, found: Any) -> None:
    assert sorted(map(list, spans(tags.split(), scheme))) == found


@pytest.mark.parametrize(
    ("scheme", "tags", "found"),
    [
        ("lenient", "B-PER I-PER O B-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),
        ("lenient", "I-PER I-PER I-LOC", [("PER", 0, 1), ("LOC", 2, 2)]),
        ("lenient", "B I O", [("_", 0, 1)]),
        ("lenient", "B-PER B-PER", [("PER", 0, 0), ("PER", 1, 1)]),
        ("lenient", "S-PER B-LOC E-LOC", [("PER", 0, 0), ("LOC", 1, 2)]),
        ("IOB2", "I-PER I-PER B-PER I-PER", [("PER", 2, 3)]),
        ("IOB1", "I-PER B-PER I-PER O", [("PER", 0, 0), ("PER", 1, 2)]),
        ("BIOES", "B-PER I-PER O S-LOC B-PER E-PER", [("LOC", 3, 3), ("PER", 4, 5)]),
        ("lenient", "", []),
    ],
)
def test_spans_by_hand(scheme: str, tags: str, found: Any) -> None:
    assert spans(tags.split(), scheme) == found


def padded(rows: list[list[int]], filling: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [filling] * (width - len(row)) for row in rows])


def config(tags: list[str]) -> Any:
    return SimpleNamespace(id2label=dict(enumerate(tags)), num_labels=len(tags))


@pytest.mark.parametrize("size", [1, 5, 12])
@pytest.mark.parametrize("logits", [True, False])
def test_figures_are_those_of_seqeval(logits: bool, size: int) -> None:
    predicted, actual = padded(NAMED["predicted"], 1), padded(NAMED["actual"], -100)
    given = torch.nn.functional.one_hot(predicted, 5).float() if logits else predicted
    figures = measure("seqeval", given, actual, size, config=config(NAMED["tags"]))

    assert figures == pytest.approx(
        {f"seqeval_{name}": NAMED[name] for name in ("precision", "recall", "f1", "accuracy")}
    )


def test_a_scheme_and_names_of_ones_own() -> None:
    predicted, actual = padded(NAMED["predicted"], 1), padded(NAMED["actual"], -100)
    strict = SpanF1("IOB2", names=NAMED["tags"])
    figures = measure({"ner": strict}, predicted, actual, config=SimpleNamespace(num_labels=5))

    assert set(figures) == {"ner_precision", "ner_recall", "ner_f1", "ner_accuracy"}
    assert figures["ner_f1"] != pytest.approx(NAMED["f1"])


def test_without_a_span_there_is_nothing_to_divide() -> None:
    actual = torch.zeros(3, 4).long()
    figures = measure("seqeval", actual, actual, config=config(["O", "B-PER"]))

    assert figures["seqeval_f1"] == 0.0
    assert figures["seqeval_accuracy"] == 1.0


@pytest.mark.parametrize("tags", [["LABEL_0", "LABEL_1"], [], ["cat", "dog"]])
def test_tags_must_be_tags(tags: list[str]) -> None:
    given = SimpleNamespace(id2label=dict(enumerate(tags)), num_labels=2)
    with pytest.raises(DataError, match=r"'seqeval' needs tags such as B-PER.*Set id2label"):
        measure("seqeval", torch.zeros(1, 2).long(), torch.zeros(1, 2).long(), config=given)


def test_a_scheme_that_is_none() -> None:
    with pytest.raises(ArgumentError, match="lenient, IOB1, IOB2, BIOES"):
        SpanF1("BILOU")
