"""A small training with a tracker, as a process of its own: `python program.py SETTINGS`, the settings as JSON.

Besides arguments of the trainer: `kill_at`, a step after whose log the process is killed, `wait`, seconds before that,
`fail_at`, a step at which the training raises, and `resume`. What tries to reach another machine is refused and noted
in `<output_dir>/../network.txt`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from surestep import Trainer, TrainerCallback, TrainingArguments

_connect = socket.socket.connect


class Line(nn.Module):
    """One linear layer with its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        prediction = self.layer(x)
        loss = nn.functional.mse_loss(prediction, labels) if labels is not None else prediction.sum()
        return {"loss": loss, "logits": prediction}


class Kill(TrainerCallback):
    """Kills the process after the log of a step, or breaks the training off."""

    def __init__(self, kill_at: int | None, wait: float, fail_at: int | None) -> None:
        self.kill_at, self.wait, self.fail_at = kill_at, wait, fail_at

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.kill_at:
            time.sleep(self.wait)
            os.kill(os.getpid(), signal.SIGKILL)
        if state.global_step == self.fail_at:
            raise RuntimeError("broken off on purpose")


def refuse_network(noted: Path) -> None:
    """Refuse connections to other machines."""

    def connect(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_UNIX or str(address[0]) in {"127.0.0.1", "::1", "localhost"}:
            return _connect(self, address)
        with noted.open("a") as file:
            file.write(f"{address}\n")
        raise OSError(f"no network in tests: {address}")

    socket.socket.connect = connect  # type: ignore[method-assign]


def samples(size: int) -> list[dict[str, Tensor]]:
    x = torch.randn(size, 3, generator=torch.Generator().manual_seed(5))
    return [{"x": row, "labels": row.sum().reshape(1)} for row in x]


def train(settings: dict[str, Any]) -> Trainer:
    """Train as the settings say, and return the trainer."""
    kill = Kill(settings.pop("kill_at", None), settings.pop("wait", 0.0), settings.pop("fail_at", None))
    resume = settings.pop("resume", False)
    quiet = {"use_cpu": True, "disable_tqdm": True, "log_level": "warning", "logging_steps": 1}
    torch.manual_seed(0)
    trainer = Trainer(
        Line(),
        TrainingArguments(**{**quiet, "per_device_train_batch_size": 4, **settings}),
        train_dataset=samples(40),
        eval_dataset=samples(8),
        callbacks=[kill],
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    refuse_network(Path(given["output_dir"]).parent / "network.txt")
    train(given)
