"""Train a small text classifier with the Trainer itself, no job file between.

Run it with: python examples/text_classification.py
Settings may be changed in the way of arguments, for example: --num_train_epochs 2 --learning_rate 1e-3
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from surestep import EvalPrediction, HfArgumentParser, Trainer, TrainingArguments

DEFAULTS = {
    "output_dir": "runs/messages_in_python",
    "num_train_epochs": 20,
    "per_device_train_batch_size": 16,
    "learning_rate": 5e-3,
    "logging_steps": 20,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "accuracy",
}
CLASSES = ["advert", "delivery", "personal"]
Sample = dict[str, Any]


def read_samples() -> tuple[list[Sample], int]:
    """Return 240 invented messages as numbers of words, and how many words there are."""
    with (Path(__file__).parent / "messages.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    words: dict[str, int] = {}
    samples = []
    for row in rows:
        numbers = [words.setdefault(word, len(words)) for word in row["text"].lower().split()]
        samples.append({"words": numbers, "labels": CLASSES.index(row["label"])})
    return samples, len(words)


def collate(samples: list[Sample]) -> dict[str, Tensor]:
    """Make a batch: the words of all texts one after the other, and where each text begins."""
    lengths = torch.tensor([len(sample["words"]) for sample in samples])
    return {
        "words": torch.tensor([word for sample in samples for word in sample["words"]]),
        "starts": lengths.cumsum(0) - lengths,
        "labels": torch.tensor([sample["labels"] for sample in samples]),
    }


class WordMeans(nn.Module):
    """Classify a text by the mean of its words' vectors."""

    def __init__(self, num_words: int, dim: int = 32) -> None:
        super().__init__()
        self.vectors = nn.EmbeddingBag(num_words, dim)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(dim, len(CLASSES)))

    def forward(self, words: Tensor, starts: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.head(self.vectors(words, starts))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Called with the scores and classes of a whole evaluation."""
    return {"accuracy": float(np.mean(prediction.predictions.argmax(axis=-1) == prediction.label_ids))}


def main(given: list[str]) -> dict[str, float]:
    defaults = [f"--{name}={value}" for name, value in DEFAULTS.items()]
    (arguments,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(defaults + given)
    torch.manual_seed(arguments.seed)
    samples, num_words = read_samples()
    trainer = Trainer(
        model=WordMeans(num_words),
        args=arguments,
        data_collator=collate,
        train_dataset=samples[:180],
        eval_dataset=samples[180:],
        compute_metrics=accuracy,
    )
    # Goes on from the newest checkpoint where there is one.
    trainer.train(resume_from_checkpoint=True)
    scores = trainer.evaluate()
    print(f"validation accuracy {scores['eval_accuracy']:.4f}, written to {arguments.output_dir}")
    return scores


if __name__ == "__main__":
    main(sys.argv[1:])
