"""How long training stands still for a save: with `save_async`, and without.

A network of some 9 million weights, whose checkpoint is weights and two moments of AdamW, is trained and saved four
times each way, in one process and on one disk, in turns. Counted is the time that passes between two steps, from when
a save is asked for until the next one is. The first save of each run, which makes memory, is told apart. With
`save_async` the next save is asked for when the one before is on the disk, as with a `save_steps` that suits the disk;
the end of the run, which waits, does not count, nor that steps are slower while another thread writes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import surestep

SAVES, BATCH = 4, 8


class Points(Dataset[dict[str, Tensor]]):
    """As many samples as are asked for."""

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": torch.full((64,), index % 7 / 7), "labels": torch.tensor([float(index % 3)])}


class Net(nn.Module):
    """Wide layers: many weights, little mathematics."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(64, width), nn.Linear(width, width), nn.Linear(width, 1)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        prediction = self.last(torch.relu(self.inner(torch.relu(self.first(x)))))
        return {"loss": nn.functional.mse_loss(prediction, labels), "logits": prediction}


class Asks(surestep.TrainerCallback):
    """Asks for a save whenever the one before is told, and for the end after the last."""

    def __init__(self) -> None:
        self.told = 1
        self.asked = 0

    def on_save(self, *_: Any, **__: Any) -> None:
        self.told += 1

    def on_step_end(self, *given: Any, **_: Any) -> None:
        control = given[2]
        if self.told > self.asked < SAVES:
            self.asked += 1
            control.should_save = True
        control.should_training_stop = self.told > SAVES


class Timed(surestep.Trainer):
    """Adds up how long the loop stands still for each save, from when it is asked for until the next one is."""

    blocked: list[float]

    def serve_requests(self, run: Any) -> None:
        """Do what is asked for, and note how long it took: writing, or copying and later on telling the callbacks."""
        saves, began = self.control.should_save, time.perf_counter()
        super().serve_requests(run)
        if saves:
            self.blocked.append(0.0)
        if self.blocked:
            self.blocked[-1] += time.perf_counter() - began


def blocked(width: int, *, later: bool) -> tuple[float, list[float]]:
    """Train once, and return how long the first save stood in the way, and the others."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(dir=".") as folder, contextlib.redirect_stdout(io.StringIO()):
        arguments = surestep.TrainingArguments(
            folder,
            save_async=later,
            save_steps=10**6,
            save_total_limit=1,
            max_steps=10**6,
            per_device_train_batch_size=BATCH,
            use_cpu=not torch.cuda.is_available(),
            report_to="none",
            disable_tqdm=True,
            logging_steps=10**6,
        )
        trainer = Timed(Net(width), arguments, train_dataset=Points(), callbacks=[Asks()])
        trainer.blocked = []
        trainer.train()
    first, *others = trainer.blocked[:SAVES]
    return first, others


def main() -> None:
    """Print what a save costs each way, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=3000, help="of the inner layer; its square is the weights")
    parser.add_argument("--rounds", type=int, default=3)
    given, _ = parser.parse_known_args()
    firsts: dict[bool, list[float]] = {False: [], True: []}
    others: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(given.rounds):
        for later in (False, True):
            first, rest = blocked(given.width, later=later)
            firsts[later].append(first)
            others[later] += rest
    at_once, beside = (statistics.median(others[later]) for later in (False, True))
    size = 3 * 4 * given.width**2 / 2**20
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"A checkpoint of about {size:.0f} MiB; tensors on {where}; {len(others[True])} saves each way, median")
    print(f"save_async=False  1.000 of the time ({at_once:.3f} s)")
    print(f"save_async=True   {beside / at_once:.3f} of it ({beside:.3f} s)")
    first = statistics.median(firsts[True]) / statistics.median(firsts[False])
    print(f"the first save    {first:.3f} of it: it makes the memory that the others use again")


if __name__ == "__main__":
    main()
