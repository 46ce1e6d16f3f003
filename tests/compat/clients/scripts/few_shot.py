"""Few-shot classification with SetFit, as a user writes it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments
from sklearn.linear_model import LogisticRegression
from transformers import TrainerCallback

from tests.compat.clients.scripts.tiny import WORDS, encoder


class Steps(TrainerCallback):
    """Notes what a callback is told: SetFit hands over its own model and arguments."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen.append(f"{type(args).__name__} {type(kwargs['model']).__name__} {state.global_step}")


def rows(start: int, size: int) -> Dataset:
    """Return texts that begin with an animal or with a colour."""
    numbers = range(start, start + size)
    texts = [f"{('dog', 'red')[number % 2]} {WORDS[number % 7]} {WORDS[number % 5]}" for number in numbers]
    return Dataset.from_dict({"text": texts, "label": [number % 2 for number in numbers]})


def accuracy(predicted: Any, wanted: Any) -> dict[str, float]:
    return {"accuracy": sum(int(one == other) for one, other in zip(predicted, wanted, strict=True)) / len(wanted)}


def main(root: Path) -> None:
    model = SetFitModel(model_body=encoder(str(root / "start")), model_head=LogisticRegression())
    arguments = TrainingArguments(
        output_dir=str(root / "run"),
        batch_size=4,
        num_epochs=2,
        num_iterations=1,
        body_learning_rate=1e-2,
        logging_steps=2,
        eval_strategy="steps",
        eval_steps=4,
        save_strategy="steps",
        save_steps=4,
        load_best_model_at_end=True,
        report_to="none",
        show_progress_bar=False,
    )
    steps = Steps()
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows(0, 8),
        eval_dataset=rows(20, 6),
        metric=accuracy,
        callbacks=[steps],
    )
    trainer.train()
    model.save_pretrained(str(root / "final"))
    seen = {
        "logs": trainer.st_trainer.state.log_history,
        "steps": steps.seen,
        "evaluated": trainer.evaluate(rows(40, 8)),
        "predicted": model.predict_proba(rows(60, 4)["text"]).tolist(),
    }
    (root / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
