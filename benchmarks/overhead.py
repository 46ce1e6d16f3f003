"""What a step costs beside the mathematics: a loop by hand, surestep and transformers.

A two-layer network of 32 hidden units on batches of 32 samples, with clipping, a linear schedule, fused AdamW and a
log every 50 steps: so little mathematics that the rest shows. Counted are the calls of Python functions, logs
included. The time is that which the fastest tenth of the steps of several runs, taken in turns, keep within: other work
on the machine has little part in these, and logs have none. The loop by hand reads the very loader that surestep makes.

Below the table: what each further micro-batch of a step, a step whose batches two workers fetch, and a batch of an
evaluation or prediction cost in calls of this process, by hand and here.
"""

from __future__ import annotations

import contextlib
import gc
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import surestep

WARM_UP, COUNTED, EVERY = 50, 200, 50
STEPS = WARM_UP + COUNTED + EVERY
BATCH = 32
# Called after each step, or batch of an evaluation; its own call is counted with all alike.
Meter = Callable[[], None]
# Works in a folder, and calls the meter.
Work = Callable[[str, Meter], None]


class Points(Dataset[dict[str, Tensor]]):
    """Enough samples for one epoch."""

    def __init__(self, accumulation: int = 1) -> None:
        samples = STEPS * BATCH * accumulation
        self.x, self.y = torch.randn(samples, 16), torch.randn(samples, 1)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "labels": self.y[index]}


class Net(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 32), nn.Linear(32, 1)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        prediction = self.last(torch.relu(self.first(x)))
        return {"loss": nn.functional.mse_loss(prediction, labels), "logits": prediction}


class Metered(surestep.TrainerCallback):
    """Calls the meter after each batch of an evaluation."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def on_prediction_step(self, *_: Any, **__: Any) -> None:
        self._meter()


def _settings(folder: str, accumulation: int = 1, workers: int = 0) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "per_device_train_batch_size": BATCH,
        "per_device_eval_batch_size": BATCH,
        "gradient_accumulation_steps": accumulation,
        "dataloader_num_workers": workers,
        "num_train_epochs": 1,
        "logging_steps": EVERY,
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": "none",
        "use_cpu": True,
    }


def _trainer(folder: str, accumulation: int = 1, workers: int = 0) -> surestep.Trainer:
    args = surestep.TrainingArguments(**_settings(folder, accumulation, workers))
    points = Points(accumulation)
    return surestep.Trainer(Net(), args, train_dataset=points, eval_dataset=points)


def by_hand(folder: str, meter: Meter, *, accumulation: int = 1, workers: int = 0) -> None:
    """Train as one writes it without a trainer."""
    loader = _trainer(folder, accumulation, workers).get_train_dataloader()
    model = Net()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=5e-5, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / STEPS))
    total = torch.zeros(())
    model.train()
    step = 0
    for number, batch in enumerate(loader, start=1):
        loss = model(**batch)["loss"]
        if accumulation > 1:
            loss = loss / accumulation
        loss.backward()
        total += loss.detach()
        if number % accumulation:
            continue
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        step += 1
        if step % EVERY == 0:
            print({"loss": total.item() / EVERY, "step": step})
            total.zero_()
        meter()


def ours(folder: str, meter: Meter, *, accumulation: int = 1, workers: int = 0) -> None:
    """Train by surestep, with the callbacks that it has by default."""
    with _trainer(folder, accumulation, workers).steps() as steps:
        for _ in steps:
            meter()


def original(folder: str, meter: Meter) -> None:
    """Train by transformers."""
    import transformers

    class Metered(transformers.Trainer):
        def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
            super()._maybe_log_save_evaluate(*args, **kwargs)
            meter()

    Metered(Net(), transformers.TrainingArguments(**_settings(folder)), train_dataset=Points()).train()


def evaluated_by_hand(folder: str, meter: Meter, *, predicts: bool = False) -> None:
    """Evaluate, or predict, as one writes it without a trainer: a mean over the samples, and arrays on the host."""
    loader = _trainer(folder).get_eval_dataloader()
    model = Net().eval()
    total, samples = torch.zeros(()), 0
    kept: list[Any] = []
    with torch.no_grad():
        for batch in loader:
            outputs = model(**batch)
            total += outputs["loss"] * len(batch["labels"])
            samples += len(batch["labels"])
            if predicts:
                kept.append((outputs["logits"].numpy(), batch["labels"].numpy()))
            meter()
    print({"loss": total.item() / samples}, *map(np.concatenate, zip(*kept, strict=True)))


def evaluated(folder: str, meter: Meter, *, predicts: bool = False) -> None:
    """Evaluate, or predict, by surestep."""
    trainer = _trainer(folder)
    trainer.add_callback(Metered(meter))
    if predicts:
        trainer.predict(trainer.eval_dataset)
    else:
        trainer.evaluate()


RUNS: dict[str, Work] = {"by hand": by_hand, "surestep": ours, "transformers": original}
# What is counted besides: by hand, and here.
MORE: dict[str, tuple[Work, Work]] = {
    "4 micro-batches": (partial(by_hand, accumulation=4), partial(ours, accumulation=4)),
    "2 workers": (partial(by_hand, workers=2), partial(ours, workers=2)),
    "evaluation": (evaluated_by_hand, evaluated),
    "prediction": (partial(evaluated_by_hand, predicts=True), partial(evaluated, predicts=True)),
}


@contextlib.contextmanager
def quiet() -> Iterator[str]:
    """Give a scratch folder, and keep the logs of a run off the screen."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        yield folder


def calls_per_step(run: Work) -> float:
    """Count the Python calls of the steps after the warm-up."""
    calls = steps = 0

    def count(frame: Any, event: str, argument: Any) -> None:  # noqa: ARG001 (the form is Python's)
        nonlocal calls
        calls += event == "call"

    def meter() -> None:
        nonlocal steps
        steps += 1
        if steps == WARM_UP:
            gc.collect()
            gc.disable()
            sys.setprofile(count)
        elif steps == WARM_UP + COUNTED:
            sys.setprofile(None)
            gc.enable()

    with quiet() as folder:
        run(folder, meter)
    return calls / COUNTED


def seconds_of_steps(run: Work) -> list[float]:
    """Measure the time of each step after the warm-up."""
    times: list[float] = []
    with quiet() as folder:
        run(folder, lambda: times.append(time.perf_counter()))
    return np.diff(times)[WARM_UP : WARM_UP + COUNTED].tolist()


def main(repeats: int = 8) -> None:
    """Print calls and time of a step, and both in terms of the loop by hand; then the calls of other work."""
    torch.set_num_threads(1)
    calls = {name: calls_per_step(run) for name, run in RUNS.items()}
    turns = [{name: seconds_of_steps(run) for name, run in RUNS.items()} for _ in range(repeats)]
    times = {name: float(np.quantile([turn[name] for turn in turns], 0.1)) for name in RUNS}
    base_calls, base_time = calls["by hand"], times["by hand"]
    print(f"{'':14}{'calls per step':>16}{'ratio':>8}{'time per step':>16}{'ratio':>8}")
    for name in RUNS:
        print(
            f"{name:14}{calls[name]:16.0f}{calls[name] / base_calls:8.2f}"
            f"{times[name] * 1e6:13.0f} us{times[name] / base_time:8.2f}"
        )
    print(f"\n{'calls of':18}{'by hand':>12}{'surestep':>12}")
    for name, runs in MORE.items():
        print(f"{name:18}" + "".join(f"{calls_per_step(run):12.0f}" for run in runs))


if __name__ == "__main__":
    main()
