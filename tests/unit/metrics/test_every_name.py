"""Every metric that has a name, over uneven ranks of which one has nothing, against arithmetic that is not ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn import metrics as sk
from tests.unit.metrics.batches import batches, numbers
from tests.unit.metrics.test_classes import several
from tests.unit.metrics.test_spans import NAMED, config, padded
from tests.unit.metrics.test_text import READ, SAID, WANTED, texts
from tests.unit.metrics.world import together
from torchmetrics.functional.text import rouge_score, sacre_bleu_score, squad

from surestep.metrics.named import NAMES

# Predictions, labels, settings, and the figures by somebody else.
Case = tuple[Any, Any, dict[str, Any], dict[str, float]]


def classes(reference: Callable[..., float], **named: Any) -> Case:
    logits, labels = several(5)
    return logits, labels, {}, {"": reference(labels, logits.argmax(1), **named)}


def average(reference: Callable[..., float], how: str) -> Case:
    return classes(reference, average=how, zero_division=0.0)


def areas() -> Case:
    logits, labels = several(5)
    return logits, labels, {}, {"": sk.roc_auc_score(labels, logits.softmax(1), multi_class="ovr", average="macro")}


def errors() -> Case:
    amounts, wanted = torch.randn(37, 1, generator=numbers()), torch.randn(37, 1, generator=numbers(1))
    return amounts, wanted, {}, {"": sk.mean_squared_error(wanted, amounts)}


def surprise() -> Case:
    logits, labels = torch.randn(9, 6, 5, generator=numbers()), torch.randint(0, 5, (9, 6), generator=numbers(1))
    labels[torch.rand(9, 6, generator=numbers(2)) < 0.4] = -100
    return logits, labels, {}, {"": float(torch.nn.functional.cross_entropy(logits.movedim(-1, 1), labels).exp())}


def overlaps() -> Case:
    given = rouge_score(texts(SAID), texts(WANTED), rouge_keys=("rouge1", "rouge2", "rougeL"))
    # Texts of one line have one sentence.
    figures = {name: float(given[f"rouge{name}_fmeasure"]) for name in ("1", "2", "L")}
    return SAID, WANTED, READ, figures | {"Lsum": figures["L"]}


def translations() -> Case:
    expected = sacre_bleu_score(texts(SAID), [[text] for text in texts(WANTED)], tokenize="13a")
    return SAID, WANTED, READ, {"": float(expected)}


def spans() -> Case:
    figures = {f"_{name}": NAMED[name] for name in ("precision", "recall", "f1", "accuracy")}
    return padded(NAMED["predicted"], 1), padded(NAMED["actual"], -100), {"config": config(NAMED["tags"])}, figures


def answers() -> Case:
    said = [{"prediction_text": text, "id": str(number)} for number, text in enumerate(texts(SAID))]
    wanted = [
        {"answers": {"answer_start": [0], "text": [text]}, "id": str(number)}
        for number, text in enumerate(texts(WANTED))
    ]
    percent = squad(said, wanted)
    return SAID, WANTED, READ, {f"_{name}": float(value) / 100 for name, value in percent.items()}


CASES: dict[str, Callable[[], Case]] = {
    "accuracy": lambda: classes(sk.accuracy_score),
    "mcc": lambda: classes(sk.matthews_corrcoef),
    "iou": lambda: classes(sk.jaccard_score, average="macro", zero_division=0.0),
    "auroc": areas,
    "mse": errors,
    "perplexity": surprise,
    "rouge": overlaps,
    "bleu": translations,
    "seqeval": spans,
    "squad": answers,
}
for name, reference in {"f1": sk.f1_score, "precision": sk.precision_score, "recall": sk.recall_score}.items():
    CASES[name] = lambda reference=reference: average(reference, "macro")
    for how in ("macro", "micro", "weighted"):
        CASES[f"{name}_{how}"] = lambda reference=reference, how=how: average(reference, how)


def test_no_name_is_left_out() -> None:
    assert set(CASES) == set(NAMES)


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("name", CASES)
def test_a_metric_is_what_others_make_of_it_on_uneven_ranks(name: str, size: int) -> None:
    predictions, labels, settings, expected = CASES[name]()
    parts = list(batches(predictions, labels, size))
    shares = [parts[:1], [], parts[1:]]

    for found in together(name, shares, **settings):
        assert found == pytest.approx({f"{name}{suffix}": value for suffix, value in expected.items()}, rel=1e-6)
