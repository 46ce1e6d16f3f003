"""The loss of an evaluation: one number for each model and set, whatever the batch size, and whatever is looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.parity import tiny
from tests.small import quick
from torch import Tensor, nn
from transformers import (
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForTokenClassification,
    SegformerConfig,
    SegformerForSemanticSegmentation,
)

from surestep import Trainer
from surestep.logs import warn_once

IGNORED = -100
LENGTHS = (9, 2, 5, 3, 8, 2, 4)


def sentences(classes: int = 24, *, aside: int = 0) -> list[dict[str, Tensor]]:
    """Sentences of many lengths with a label for each token, of which every third, and the first `aside`, are none."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for length in LENGTHS:
        tokens = torch.randint(3, 24, (length,), generator=generator)
        labels = (tokens * 5 % classes).masked_fill(torch.arange(length) % 3 == 2, IGNORED)
        labels[:aside] = IGNORED
        rows.append({"input_ids": tokens, "labels": labels})
    return rows


def padded(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    joined = nn.utils.rnn.pad_sequence
    tokens = [row["input_ids"] for row in rows]
    return {
        "input_ids": joined(tokens, batch_first=True),
        "attention_mask": joined([torch.ones_like(row) for row in tokens], batch_first=True),
        "labels": joined([row["labels"] for row in rows], batch_first=True, padding_value=IGNORED),
    }


def reviews() -> list[dict[str, Any]]:
    labels = [1, 0, IGNORED, 1, 1, 0, 0]
    return [{**row, "labels": torch.tensor(label)} for row, label in zip(sentences(), labels, strict=True)]


def padded_reviews(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    whole = padded([{**row, "labels": row["input_ids"]} for row in rows])
    return {**whole, "labels": torch.stack([row["labels"] for row in rows])}


class Own(nn.Module):
    """A causal model of the user's, which takes no count and whose class tells nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Embedding(24, 24)

    def forward(self, input_ids: Tensor, attention_mask: Any = None, labels: Any = None) -> dict[str, Tensor]:
        logits = self.scores(input_ids)
        wanted = labels[:, 1:].flatten()
        return {"loss": nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), wanted), "logits": logits}


class Open(Own):
    """One that takes any keyword."""

    def forward(self, input_ids: Tensor, labels: Any = None, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        return super().forward(input_ids, None, labels)


def shifted(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return logits[:, :-1], labels[:, 1:]


def aligned(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return logits, labels


Reading = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
MODELS: dict[str, tuple[Callable[[], nn.Module], Any, Any, Reading]] = {
    "gpt2": (tiny.gpt2, sentences, padded, shifted),
    "llama": (tiny.llama, sentences, padded, shifted),
    # Prompts are no targets, so that counts tell nothing of a shift.
    "gpt2, prompts": (tiny.gpt2, lambda: sentences(aside=1), padded, shifted),
    "own": (Own, sentences, padded, shifted),
    "own, any keyword": (Open, sentences, padded, shifted),
    "tags": (lambda: tiny.bert(BertForTokenClassification), lambda: sentences(2), padded, aligned),
    "masked": (lambda: tiny.bert(BertForMaskedLM), sentences, padded, aligned),
    "t5": (tiny.t5, sentences, padded, aligned),
    "classes": (tiny.bert, reviews, padded_reviews, aligned),
}


def by_hand(model: nn.Module, rows: list[Any], collate: Any, reading: Reading) -> float:
    """The mean over every label that is one, taken sample by sample."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    model.eval()
    for row in rows:
        batch = collate([row])
        with torch.no_grad():
            logits, labels = reading(model(**batch)["logits"].double(), batch["labels"])
        total += nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.flatten(), reduction="sum")
        count += int((labels != IGNORED).sum())
    return float(total) / count


@pytest.fixture(params=MODELS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, list[Any], Any, float]:
    make, data, collate, reading = MODELS[request.param]
    torch.manual_seed(0)
    model, rows = make(), data()
    return model, rows, collate, by_hand(model, rows, collate, reading)


@pytest.mark.parametrize("looks", ["the loss alone", "metrics", "outputs"])
def test_the_loss_is_the_same_for_every_batch_size(tmp_path: Path, case: Any, looks: str) -> None:
    model, rows, collate, exact = case
    further: dict[str, Any] = {
        "the loss alone": {},
        "metrics": {"metrics": "accuracy"},
        "outputs": {"compute_metrics": lambda prediction: {}},
    }[looks]
    for size in (1, 2, 3, 7):
        trainer = quick(
            tmp_path, model=model, data_collator=collate, eval_dataset=rows, per_device_eval_batch_size=size, **further
        )
        assert trainer.evaluate()["eval_loss"] == pytest.approx(exact, rel=1e-6), size


def test_an_evaluation_in_training_is_that_of_a_new_trainer(tmp_path: Path, case: Any) -> None:
    model, rows, collate, exact = case
    trainer = quick(
        tmp_path,
        model=model,
        data_collator=collate,
        train_dataset=rows,
        eval_dataset=rows,
        per_device_eval_batch_size=2,
        learning_rate=0.0,
        max_steps=1,
        eval_strategy="steps",
        eval_steps=1,
    )
    trainer.train()

    (logged,) = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert logged == pytest.approx(exact, rel=1e-6)


def test_pixels_that_segmentation_leaves_out_weigh_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"depths": [1] * 4, "hidden_sizes": [8] * 4, "decoder_hidden_size": 8}
    model = SegformerForSemanticSegmentation(SegformerConfig(**sizes, num_attention_heads=[1] * 4, num_labels=3)).eval()
    rows = [{"pixel_values": torch.randn(3, 32, 32), "labels": torch.randint(0, 3, (32, 32))} for _ in LENGTHS]
    for row, length in zip(rows, LENGTHS, strict=True):
        row["labels"][: 3 * length] = 255
    with torch.no_grad():
        means = [model(**{name: value[None] for name, value in row.items()}).loss.item() for row in rows]
    counts = [int((row["labels"] != 255).sum()) for row in rows]
    expected = sum(mean * count for mean, count in zip(means, counts, strict=True)) / sum(counts)

    for size in (1, 2, 3, 7):
        trainer = quick(tmp_path, model=model, eval_dataset=rows, per_device_eval_batch_size=size)
        assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-6), size


def answered(ends: list[int]) -> tuple[nn.Module, list[dict[str, Tensor]]]:
    """A model that answers questions, and texts of 6 tokens of which some are cut off before their answer."""
    torch.manual_seed(0)
    tokens = torch.randint(3, 24, (len(ends), 6))
    places = zip(tokens, (0, 7, 2, 9, 1, 6, 3), ends, strict=True)
    rows = [
        {"input_ids": row, "start_positions": torch.tensor(start), "end_positions": torch.tensor(end)}
        for row, start, end in places
    ]
    return tiny.bert(BertForQuestionAnswering).eval(), rows


def test_answers_that_are_cut_off_weigh_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, rows = answered([1, 8, 2, 9, 5, 6, 4])
    with torch.no_grad():
        losses = [model(**{name: value[None] for name, value in row.items()}).loss.item() for row in rows]
    kept = [loss for loss, row in zip(losses, rows, strict=True) if row["start_positions"] < 6]

    assert len(kept) == 4
    for size in (1, 2, 3, 7):
        trainer = quick(tmp_path, model=model, eval_dataset=rows, per_device_eval_batch_size=size)
        assert trainer.evaluate()["eval_loss"] == pytest.approx(sum(kept) / 4, rel=1e-6), size
    assert "cut off" not in caplog.text


def test_answers_that_are_cut_in_two_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_once.cache_clear()
    model, rows = answered([1, 8, 7, 9, 5, 6, 4])
    quick(tmp_path, model=model, eval_dataset=rows, per_device_eval_batch_size=2).evaluate()

    assert caplog.text.count("Some answers are cut off between their start and their end") == 1
    assert "Cut no answer in two" in caplog.text


@pytest.mark.parametrize("declared", [True, False])
def test_a_declared_shift_is_believed(tmp_path: Path, declared: bool) -> None:
    torch.manual_seed(0)
    model = Own()
    model.shifts_labels = declared  # type: ignore[assignment]
    rows = sentences()
    trainer = quick(tmp_path, model=model, data_collator=padded, eval_dataset=rows, per_device_eval_batch_size=1)
    means = [model(**padded([row]))["loss"].item() for row in rows]
    counts = [int((row["labels"][declared:] != IGNORED).sum()) for row in rows]
    expected = sum(mean * count for mean, count in zip(means, counts, strict=True)) / sum(counts)

    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-6)


def test_an_override_of_the_prediction_step_is_called_once_a_batch(tmp_path: Path) -> None:
    calls: list[bool] = []

    class Counts(Trainer):
        def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
            calls.append(prediction_loss_only)
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)

    trainer = quick(
        tmp_path, Counts, model=Own(), data_collator=padded, eval_dataset=sentences(), per_device_eval_batch_size=3
    )
    trainer.evaluate()

    assert calls == [True] * 3
