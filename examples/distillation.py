"""Distillation: a small network with few samples learns the handwritten digits from a larger one's answers.

The teacher is trained first, on 1,200 samples. The student has 100 of them, and a loss of two terms: what the labels
say and what the teacher says. It is trained on the labels alone for comparison. Needs scikit-learn, which carries the
digits.

    python examples/distillation.py --output_dir runs/distillation --max_steps 1200 --learning_rate 1e-2
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from surestep import EvalPrediction, HfArgumentParser, Trainer, TrainingArguments


@dataclass
class DistillationArguments(TrainingArguments):
    """The arguments of a run, and two of distillation."""

    temperature: float = field(default=4.0, metadata={"help": "Softens both distributions before they are compared."})
    teacher_share: float = field(
        default=0.7, metadata={"help": "Weight of the teacher's term; the labels have the rest."}
    )


class Digits(nn.Module):
    """A network of one hidden layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, pixels: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.layers(pixels)
        return (
            {"logits": logits}
            if labels is None
            else {"loss": functional.cross_entropy(logits, labels), "logits": logits}
        )


class DistillationTrainer(Trainer):
    """Trains on the labels and on the answers of a teacher."""

    def __init__(self, *args: Any, teacher: nn.Module, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.teacher = teacher.to(self.args.device).eval().requires_grad_(False)

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        outputs = model(**inputs)
        with torch.no_grad():
            answers = self.teacher(inputs["pixels"])["logits"]
        heat, share = self.args.temperature, self.args.teacher_share
        theirs, ours = (
            functional.log_softmax(answers / heat, dim=-1),
            functional.log_softmax(outputs["logits"] / heat, dim=-1),
        )
        # Hinton et al. 2015: the square of the temperature keeps the size of the gradient.
        taught = functional.kl_div(ours, theirs, log_target=True, reduction="batchmean") * heat**2
        loss = share * taught + (1 - share) * outputs["loss"]
        return (loss, outputs) if return_outputs else loss


def digits() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return 1,200 samples to train on and the rest to test on."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    rows = [
        {"pixels": torch.tensor(data.data[i] / 16, dtype=torch.float32), "labels": int(data.target[i])} for i in order
    ]
    return rows[:1200], rows[1200:]


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(axis=1) == prediction.label_ids).mean())}


def main(arguments: list[str] | None = None) -> dict[str, float]:
    (args,) = HfArgumentParser(DistillationArguments).parse_args_into_dataclasses(args=arguments)
    train, test = digits()
    few, common = train[:100], {"eval_dataset": test, "compute_metrics": accuracy}
    scores = {}

    def score(name: str, trainer: Trainer) -> nn.Module:
        trainer.train()
        scores[name] = trainer.evaluate()["eval_accuracy"]
        return trainer.model

    def into(name: str) -> DistillationArguments:
        return replace(args, output_dir=str(Path(args.output_dir) / name))

    torch.manual_seed(args.seed)
    teacher = score("teacher", Trainer(Digits(512), into("teacher"), train_dataset=train, **common))
    torch.manual_seed(args.seed)
    score("alone", Trainer(Digits(32), into("alone"), train_dataset=few, **common))
    torch.manual_seed(args.seed)
    score("taught", DistillationTrainer(Digits(32), into("taught"), teacher=teacher, train_dataset=few, **common))
    print("  ".join(f"{name}: {value:.3f}" for name, value in scores.items()))
    return scores


if __name__ == "__main__":
    main()
