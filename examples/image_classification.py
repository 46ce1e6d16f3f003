"""Train a small network on handwritten digits with the Trainer itself, no job file between.

Run it with: python examples/image_classification.py            (needs scikit-learn, which carries the pictures)
Settings may be changed in the way of arguments, for example: --num_train_epochs 2 --learning_rate 1e-3
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import Dataset, random_split

from surestep import EvalPrediction, HfArgumentParser, Trainer, TrainingArguments

DEFAULTS = {
    "output_dir": "runs/digits_in_python",
    "num_train_epochs": 10,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 256,
    "learning_rate": 3e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "logging_steps": 40,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "accuracy",
}


class Digits(Dataset[dict[str, Tensor]]):
    """1,797 pictures of 8 x 8 pixels. A sample is a dictionary with the names that the model's forward takes."""

    def __init__(self) -> None:
        pictures, digits = load_digits(return_X_y=True)
        self.pictures = torch.tensor(pictures / 16.0, dtype=torch.float32).view(-1, 1, 8, 8)
        self.digits = torch.tensor(digits)

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": self.pictures[index], "labels": self.digits[index]}


class Network(nn.Module):
    """Any module serves whose forward takes the samples' names and returns its loss with the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(64 * 4 * 4, 10),
        )

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.layers(pixel_values)
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Called with the scores and classes of a whole evaluation."""
    return {"accuracy": float(np.mean(prediction.predictions.argmax(axis=-1) == prediction.label_ids))}


def main(given: list[str]) -> dict[str, float]:
    defaults = [f"--{name}={value}" for name, value in DEFAULTS.items()]
    (arguments,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(defaults + given)
    torch.manual_seed(arguments.seed)
    train, validation, test = random_split(Digits(), [0.7, 0.15, 0.15])
    trainer = Trainer(
        model=Network(), args=arguments, train_dataset=train, eval_dataset=validation, compute_metrics=accuracy
    )
    # Goes on from the newest checkpoint where there is one.
    trainer.train(resume_from_checkpoint=True)
    scores = trainer.predict(test, metric_key_prefix="test").metrics
    print(f"test accuracy {scores['test_accuracy']:.4f}, written to {arguments.output_dir}")
    return scores


if __name__ == "__main__":
    main(sys.argv[1:])
