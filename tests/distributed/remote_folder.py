"""Two ranks that go on from a remote folder alone: in a folder that they share, and each on a machine of its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist

from surestep import Trainer, TrainerCallback, TrainingArguments
from surestep.runtime.remote_folder import RemoteFolder
from tests.small import Points, line


class BreaksOff(TrainerCallback):
    """Breaks off on every rank, without a save."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def start(folder: Path | str, step: int = 0, asked: str = "auto", **settings: Any) -> dict[str, Any]:
    """Start a run of five steps, which breaks off after one of them, or never where that is 0."""
    common = {"save_strategy": "steps", "save_steps": 1, "logging_steps": 1, "report_to": "none", "disable_tqdm": True}
    args = TrainingArguments(
        str(folder), per_device_train_batch_size=2, num_train_epochs=1, use_cpu=True, **{**common, **settings}
    )
    trainer = Trainer(line(), args, train_dataset=Points(), callbacks=[BreaksOff(step)] if step else [])
    try:
        trainer.train(resume_from_checkpoint=asked)
    except KeyboardInterrupt:
        return {"broke_off": True}
    except (ValueError, OSError) as error:
        return {"error": f"{type(error).__name__}: {error}", "step": trainer.state.global_step}
    report = trainer.resume_report
    weight = trainer.model.layer.weight.detach().clone()
    return {"step": trainer.state.global_step, "from": None if report is None else report.step, "weight": weight}


def work(folder: Path) -> dict[str, Any]:
    """Break off and go on with nothing but the URL; then with a store that fails, and on machines of their own."""
    folder, rank = Path(folder).parent, int(os.environ["RANK"])
    url = f"file://{folder}/bucket"
    whole = start(folder / "whole")
    broke_off = start(folder / "first", 3, save_remote=url)
    dist.barrier()
    if rank == 0:
        shutil.rmtree(folder / "first")
    dist.barrier()
    ended = start(folder / "second", save_remote=url)
    dist.barrier()
    fetched: list[str] = []
    parts = RemoteFolder.parts
    RemoteFolder.parts = lambda self, name, size: fetched.append(name) or parts(self, name, size)  # type: ignore
    # What is relative is another folder on each rank from here on, as a disk of each machine is.
    (folder / f"machine{rank}").mkdir()
    os.chdir(folder / f"machine{rank}")
    os.environ["LOCAL_RANK"] = "0"
    nothing_saved = {"save_strategy": "no", "save_steps": 500}
    apart = start("out", asked=f"{url}/checkpoint-2", **nothing_saved)
    own = sorted(path.name for path in Path("out").glob("checkpoint-*"))
    RemoteFolder.parts = parts  # type: ignore
    dist.barrier()
    os.chdir(folder)

    def refuse(self: RemoteFolder, source: Path, name: str) -> None:
        raise PermissionError("no more room in the bucket")

    RemoteFolder.put = refuse  # type: ignore
    stopped = start(folder / "third", save_remote=f"file://{folder}/other", on_save_error="stop")
    return {
        "whole": whole,
        "broke_off": broke_off,
        "ended": ended,
        "apart": apart,
        "own": own,
        "fetched": bool(fetched),
        "stopped": stopped,
        "bucket": sorted(path.name for path in (folder / "bucket").glob("checkpoint-*")),
    }
