"""Legs of one training, each on as many ranks as there are: one goes on from the checkpoint where the last stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from surestep import Trainer, TrainerCallback, TrainingArguments
from tests.distributed.training import Sentences, Stream, Tagger

# What each training is, but for its batches.
KINDS: dict[str, dict[str, Any]] = {
    "one batch": {"global_batch_size": 12, "num_train_epochs": 2},
    "another batch": {"gradient_accumulation_steps": 2, "num_train_epochs": 2},
    "a stream": {"global_batch_size": 12, "max_steps": 4},
}


class StopAt(TrainerCallback):
    """Saves at a step and leaves."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_save = control.should_training_stop = state.global_step == self.step


def leg(folder: Path, kind: str, size: int, start: int, stop: int) -> dict[str, Any]:
    """Train from the checkpoint of the step `start` to the step `stop`."""
    args = TrainingArguments(
        str(folder / kind.replace(" ", "-")),
        per_device_train_batch_size=size,
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        save_strategy="steps",
        save_steps=1000,
        logging_steps=3,
        learning_rate=0.01,
        optim="sgd",
        **KINDS[kind],
    )
    trainer = Trainer(
        Tagger(),
        args,
        train_dataset=Stream() if kind == "a stream" else Sentences(),
        callbacks=[StopAt(stop)] if stop else [],
        train_metrics=["accuracy"],
    )
    trainer.train(resume_from_checkpoint=str(Path(args.output_dir) / f"checkpoint-{start}") if start else None)
    log = [
        {name: entry[name] for name in ("step", "loss", "accuracy", "learning_rate", "epoch") if name in entry}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    return {
        "seen": trainer.model.seen,
        "log": log,
        "weights": {name: value.detach().clone() for name, value in trainer.model.state_dict().items()},
        "steps": [trainer.state.global_step, trainer.state.max_steps],
    }


def work(folder: Path, *legs: str) -> dict[str, Any]:
    """Do a leg of each kind; `legs` are `kind:batch size:start:stop`, and a stop of 0 is the end."""
    results = {}
    for one in legs:
        kind, *numbers = one.split(":")
        results[kind] = leg(Path(folder).parent / "runs", kind, *map(int, numbers))
    return results
