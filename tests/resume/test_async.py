"""Checkpoints that are written while training goes on: a run resumed from any of them ends as if left alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import surestep
from surestep.checkpoint.held import HeldFiles
from surestep.checkpoint.store import CheckpointStore
from surestep.runtime.disk import Disk, writing_through
from surestep.runtime.world import World
from tests.parity.harness import Seen, run
from tests.parity.models import Documents, Net, Points, pad
from tests.resume.rig import Row, assert_goes_on, checkpoints, resumed, straight
from tests.resume.test_every_step import BASE, EVALUATED, POINTS, Counting, tied_llama

THREAD = "surestep-writer"
LATER = {"save_async": True, "save_strategy": "steps", "save_steps": 3}


class Late(Disk):
    """Lets the writing thread begin only when a step was made since the save, which changed every weight in place."""

    def __init__(self) -> None:
        self.step = 0
        self.steps = 20
        self.waited: list[int] = []

    def write(self, path: Path, parts: Iterable[bytes | memoryview]) -> None:
        if threading.current_thread().name == THREAD:
            self._wait(path)
        super().write(path, parts)

    def _wait(self, path: Path) -> None:
        saved = next((int(name.rpartition("-")[2]) for name in path.parts if name.startswith("checkpoint-")), None)
        until = time.monotonic() + 60
        while saved is not None and self.step <= saved < self.steps:
            assert time.monotonic() < until, "training did not go on"
            time.sleep(0.001)
        if saved is not None and saved not in self.waited:
            self.waited.append(saved)


class Tells(surestep.TrainerCallback):
    """Tells the disk of each step once its update is made."""

    def __init__(self, disk: Late) -> None:
        self.disk = disk

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.disk.step = state.global_step + 1


def straight_later(folder: Path, row: Row) -> tuple[Seen, Late]:
    """Train without interruption; each checkpoint is written while the next step is made, or later."""
    late = Late()
    callbacks = row.options.get("callbacks", lambda side: [])
    options = {**row.options, "callbacks": lambda side: [*callbacks(side), Tells(late)]}
    with writing_through(late):
        seen = run(surestep, {**row.arguments, **LATER}, folder=str(folder), **options)
    return seen, late


class Average(surestep.EMACallback):
    def __init__(self) -> None:
        super().__init__(decay=0.8)


ROWS = [
    Row("dropout", BASE, POINTS),
    Row("float16 with its scale", {**BASE, "fp16": True, "gradient_accumulation_steps": 2}, POINTS),
    Row("every part of a step in one call", {**BASE, "optim": "adamw_torch_fused"}, POINTS),
    Row("momentum", {**BASE, "optim": "sgd", "optim_args": "momentum=0.9"}, POINTS),
    Row("a callback with a memory", BASE, {**POINTS, "callbacks": lambda side: [Counting(0.8)]}),
    Row("two workers", {**BASE, "dataloader_num_workers": 2}, POINTS),
    Row("averaged weights", BASE, {**POINTS, "callbacks": lambda side: [Average()]}),
    Row(
        "the best so far",
        {**BASE, "eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "loss", "learning_rate": 0.1},
        {**POINTS, **EVALUATED},
    ),
    Row(
        "a language model of transformers, its weights tied",
        {**BASE, "gradient_accumulation_steps": 2},
        {"model": tied_llama, "train": Documents, "data_collator": pad},
    ),
]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes:UserWarning")
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_what_is_saved_is_the_step_of_the_save(row: Row, tmp_path: Path) -> None:
    whole = straight(tmp_path / "whole", Row(row.name, {**row.arguments, "save_steps": 3}, row.options))
    later, late = straight_later(tmp_path / "later", row)
    assert late.waited == [3, 6, 9, 12, 15, 18, 20]
    assert_goes_on(whole, later, "training")
    for checkpoint in checkpoints(tmp_path / "whole"):
        other = tmp_path / "later" / checkpoint.name
        for path in [*checkpoint.glob("*.safetensors"), *checkpoint.glob("progress*.json")]:
            assert (other / path.name).read_bytes() == path.read_bytes(), path
        if checkpoint.name in {"checkpoint-3", "checkpoint-12"}:
            again = resumed(tmp_path / "resumed", row, other, save_async=True)
            assert_goes_on(whole, again, checkpoint.name)
    store = CheckpointStore(tmp_path / "later", world=World())
    assert [store.verify(path) for path in checkpoints(tmp_path / "later")] == [[]] * 7


@contextmanager
def without_copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the writing thread read the live tensors: what a copy is there to prevent."""
    own = HeldFiles._hold

    def hold(self: Any, path: Path, header: bytes, size: int, values: Iterable[torch.Tensor]) -> None:
        kept = list(values)
        own(self, path, header, size, kept)
        file = self._files[path]
        live = type(file)(header, file.content)
        parts = lambda: iter([header, *(value.numpy().data for value in kept)])  # noqa: E731 - stands for a method
        self._files[path] = type("Live", (), {"parts": staticmethod(parts), "file": live})()

    with monkeypatch.context() as patch:
        patch.setattr(HeldFiles, "_hold", hold)
        yield


def test_the_comparison_sees_a_checkpoint_without_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = ROWS[0]
    whole = straight(tmp_path / "whole", Row(row.name, {**row.arguments, "save_steps": 3}, row.options))
    with without_copies(monkeypatch):
        straight_later(tmp_path / "later", row)
    with pytest.raises(AssertionError, match=r"losses|weights"):
        assert_goes_on(whole, resumed(tmp_path / "resumed", row, tmp_path / "later" / "checkpoint-3"), "without copies")


def test_the_newest_is_found_and_the_best_is_loaded(tmp_path: Path) -> None:
    settings = {**BASE, "eval_strategy": "steps", "eval_steps": 3, "metric_for_best_model": "loss"}
    settings |= {"load_best_model_at_end": True, "save_total_limit": 2, "learning_rate": 0.1}
    row = Row("best", settings, {**POINTS, "evaluate": lambda: Points(9, seed=1), "model": lambda: Net(0.3)})
    whole = straight(tmp_path / "whole", Row(row.name, {**settings, "save_steps": 3}, row.options))
    later, _ = straight_later(tmp_path / "later", row)
    assert_goes_on(whole, later, "best")
    names = [path.name for path in checkpoints(tmp_path / "whole")]
    assert [path.name for path in checkpoints(tmp_path / "later")] == names
    assert Path(later.state.best_model_checkpoint or "").name == Path(whole.state.best_model_checkpoint or "").name
    assert Path(later.state.best_model_checkpoint or "").is_dir()
