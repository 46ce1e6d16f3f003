"""What a step costs beside the mathematics: a loop by hand, surestep and transformers.

A two-layer network of 32 hidden units on batches of 32 samples, with clipping, a linear schedule, fused AdamW and a
log every 50 steps: so little mathematics that the rest shows. Counted are the calls of Python functions; the time is
the least of several runs, taken in turns. The loop by hand reads the very loader that surestep makes.
"""

from __future__ import annotations

import contextlib
import gc
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import surestep

WARM_UP, COUNTED, EVERY = 50, 200, 50
STEPS = WARM_UP + COUNTED + EVERY
BATCH = 32
# Called after each step; its own call is counted with all three alike.
Meter = Callable[[], None]


class Points(Dataset[dict[str, Tensor]]):
    """Enough samples for one epoch."""

    def __init__(self) -> None:
        self.x, self.y = torch.randn(STEPS * BATCH, 16), torch.randn(STEPS * BATCH, 1)

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


def _settings(folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": 1,
        "logging_steps": EVERY,
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": "none",
        "use_cpu": True,
    }


def _trainer(folder: str) -> surestep.Trainer:
    return surestep.Trainer(Net(), surestep.TrainingArguments(**_settings(folder)), train_dataset=Points())


def by_hand(folder: str, meter: Meter) -> None:
    """Train as one writes it without a trainer."""
    loader = _trainer(folder).get_train_dataloader()
    model = Net()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=5e-5, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / STEPS))
    total = torch.zeros(())
    model.train()
    for step, batch in enumerate(loader, start=1):
        loss = model(**batch)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        total += loss.detach()
        if step % EVERY == 0:
            print({"loss": total.item() / EVERY, "step": step})
            total.zero_()
        meter()


def ours(folder: str, meter: Meter) -> None:
    """Train by surestep, with the callbacks that it has by default."""
    with _trainer(folder).steps() as steps:
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


RUNS: dict[str, Callable[[str, Meter], None]] = {"by hand": by_hand, "surestep": ours, "transformers": original}


@contextlib.contextmanager
def _quiet() -> Iterator[str]:
    """Give a scratch folder, and keep the logs of a run off the screen."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        yield folder


def calls_per_step(run: Callable[[str, Meter], None]) -> float:
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

    with _quiet() as folder:
        run(folder, meter)
    return calls / COUNTED


def seconds_per_step(run: Callable[[str, Meter], None]) -> float:
    """Measure the time of the steps after the warm-up."""
    times: list[float] = []
    with _quiet() as folder:
        run(folder, lambda: times.append(time.perf_counter()))
    return (times[WARM_UP + COUNTED - 1] - times[WARM_UP - 1]) / COUNTED


def main(repeats: int = 5) -> None:
    """Print calls and time of a step, and both in terms of the loop by hand."""
    torch.set_num_threads(1)
    calls = {name: calls_per_step(run) for name, run in RUNS.items()}
    times = {name: min(seconds_per_step(run) for _ in range(repeats)) for name, run in RUNS.items()}
    base_calls, base_time = calls["by hand"], times["by hand"]
    print(f"{'':14}{'calls per step':>16}{'ratio':>8}{'time per step':>16}{'ratio':>8}")
    for name in RUNS:
        print(
            f"{name:14}{calls[name]:16.0f}{calls[name] / base_calls:8.2f}"
            f"{times[name] * 1e6:13.0f} us{times[name] / base_time:8.2f}"
        )


if __name__ == "__main__":
    main()
