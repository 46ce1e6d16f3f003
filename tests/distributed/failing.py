"""What runs on every rank: a training in which one rank alone fails in the middle of a step."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from tests.distributed.mistaken import Fails, Numbered, raised, trainer_of


class Dies(Fails):
    """Is killed where the other fails, as the system kills a process that takes too much memory."""

    def forward(self, x: Tensor, labels: Tensor | None = None, number: Tensor | None = None) -> dict[str, Tensor]:
        try:
            return super().forward(x, labels, number)
        except ValueError:
            os.kill(os.getpid(), signal.SIGKILL)
            raise


def train(folder: Path, rank: int, ranks: int, kind: type[Fails] = Fails) -> None:
    """Train with two samples a batch, in order; the second step's batch of a rank cannot be computed."""
    model = kind(2 * (ranks + rank), error=ValueError("a bad sample"))
    trainer_of(folder, model=model, train_dataset=Numbered(6 * ranks), ddp_find_unused_parameters=False).train()


def work(folder: Path, rank: str, ranks: str) -> dict[str, Any]:
    """Return what was raised; the process that has failed then ends, as one does that raises."""
    return raised(lambda: train(folder, int(rank), int(ranks)))


if __name__ == "__main__":
    train(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Dies if "killed" in sys.argv else Fails)
