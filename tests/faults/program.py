"""A run that is interrupted: what each process of it does, and the moments at which it signals itself."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from surestep import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from surestep.callbacks.trackers.jsonl import LOG_NAME, read_log
from surestep.errors import Interrupted
from surestep.runtime.agreement import Agreement
from surestep.trainer import last_good
from surestep.training.state import ExportableState

_PACE = 0.004
_CLOCK = ("_runtime", "_per_second", "time")


class Moments:
    """Counts what happens in this process and sends it a signal at the moment that the case names."""

    def __init__(self, case: dict[str, Any]) -> None:
        self._case = case if int(os.environ.get("RANK", "0")) in case.get("ranks", [0, 1, 2]) else {}
        self._counts: Counter[str] = Counter()
        self._process = os.getpid()
        self.draws, self.pace = case.get("draws", False), case.get("pace", _PACE)

    def come(self, point: str) -> None:
        """Note that a point is reached."""
        if os.getpid() != self._process:
            return
        self._counts[point] += 1
        if self._case.get("point") == point and self._counts[point] == self._case.get("count", 1):
            send = os.killpg if self._case.get("group") else os.kill
            for name in self._case.get("signals", ["SIGTERM"]):
                send(os.getpid(), getattr(signal, name))
            if self._case.get("raises"):
                raise RuntimeError(f"planted at {point}")


class Samples(Dataset):
    def __init__(self, moments: Moments, size: int, point: str) -> None:
        self.x = torch.randn(size, 6, generator=torch.Generator().manual_seed(size))
        self._moments, self._point = moments, point

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        self._moments.come(self._point)
        return {"x": self.x[index], "labels": self.x[index].sum(0, keepdim=True)}


class Net(nn.Module):
    def __init__(self, moments: Moments) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Linear(6, 16), nn.BatchNorm1d(16)
        self.drop, self.last = nn.Dropout(0.3), nn.Linear(16, 1)
        self._moments = moments

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Any]:
        self._moments.come("forward" if self.training else "evaluating")
        time.sleep(self._moments.pace)
        if self._moments.draws:
            random.random()
        prediction = self.last(self.drop(torch.relu(self.norm(self.first(x)))))
        return {"loss": nn.functional.mse_loss(prediction, labels), "logits": prediction}


class Counts(TrainerCallback, ExportableState):
    """A callback with a memory, which comes to the points of a step as well."""

    def __init__(self, moments: Moments | None = None) -> None:
        self.evaluations, self._moments = 0, moments

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"evaluations": self.evaluations}}

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.evaluations += 1

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert self._moments is not None
        self._moments.come("step_end")

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert self._moments is not None
        self._moments.come("updating")

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert self._moments is not None
        self._moments.come("epoch_end")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert self._moments is not None
        self._moments.come("train_end")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            with (Path(args.output_dir) / "saved.txt").open("a") as file:
                file.write(f"{state.global_step}\n")
        assert self._moments is not None
        self._moments.come("committed")


class Hears(Counts):
    """One that hears of a step before it is made."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.evaluations += 0


class Watched(Trainer):
    moments: Moments

    def get_train_dataloader(self) -> Any:
        (self._output_folder / "began").touch()
        self.moments.come("begin")
        return super().get_train_dataloader()

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self.moments.come("saving")
        super()._save_checkpoint(*args, **kwargs)
        self.moments.come("saved")


def run(folder: Path, case: dict[str, Any]) -> None:
    """Train, or go on, in `folder`; leave in it what the run came to, or where it was stopped."""
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if rank == 1 and "slow_to_settle" in case:
        settle = Agreement.settle
        Agreement.settle = lambda self, place: (time.sleep(case["slow_to_settle"]), settle(self, place))[1]  # type: ignore[method-assign]
    last_good.PATIENCE = case.get("patience_over_ranks", last_good.PATIENCE)
    moments = Moments(case)
    settings = {
        "per_device_train_batch_size": 12 // (2 * ranks),
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 2,
        "learning_rate": 0.01,
        "logging_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "save_steps": 5,
        "per_device_eval_batch_size": 2,
        "metric_for_best_model": "first_loss",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        **case.get("settings", {}),
    }
    first, second = Samples(moments, 11, "fetching"), Samples(moments, 8, "fetching")
    trainer = Watched(
        Net(moments),
        TrainingArguments(str(folder), **settings),
        train_dataset=Samples(moments, 66, "loading"),
        eval_dataset=first if case.get("one_set") else {"first": first, "second": second},
        callbacks=[
            (Hears if case.get("hears") else Counts)(moments),
            EarlyStoppingCallback(case.get("patience", 100)),
        ],
    )
    trainer.moments = moments
    try:
        if "by_hand" in case:
            with trainer.steps() as steps:
                for state in steps:
                    if state.global_step == case["by_hand"]:
                        raise RuntimeError("planted by hand")
        trainer.train(resume_from_checkpoint=True)
    except Interrupted as stop:
        (folder / f"stopped-{rank}").write_text(json.dumps([stop.signal_number, stop.step]))
        raise
    if rank == 0:
        (folder / "end.json").write_text(json.dumps(_end(trainer)))


def _end(trainer: Trainer) -> dict[str, Any]:
    digest = hashlib.blake2b()
    for tensor in trainer.model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    for state in trainer.optimizer.state_dict()["state"].values():
        digest.update(state["exp_avg"].numpy().tobytes())
    state = trainer.state
    log = [{k: v for k, v in entry.items() if not k.endswith(_CLOCK)} for entry in state.log_history]
    counts = [item.evaluations for item in trainer.callback_handler.callbacks if isinstance(item, Counts)]
    # When it was saved is no part of what a run came to, but for where.
    lines = [entry for entry in read_log(Path(trainer.args.output_dir) / LOG_NAME) if entry["event"] != "save"]
    written = [{k: v for k, v in entry.items() if not k.endswith(_CLOCK)} for entry in lines]
    return {
        "written": written,
        "weights": digest.hexdigest(),
        "log": log,
        "step": state.global_step,
        "counts": counts,
        "best": [state.best_metric, state.best_global_step],
    }


if __name__ == "__main__":
    run(Path(sys.argv[1]), json.loads(sys.argv[2]))
