"""A store to test, and what lies in its folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import torch
from tests.warm import server

from surestep.checkpoint.layout import checkpoints_in, step_of
from surestep.checkpoint.retention import Retention
from surestep.checkpoint.store import CheckpointStore
from surestep.checkpoint.tree import write_tree
from surestep.runtime.world import World


def make_store(root: Path, keep_last: int | None = None) -> CheckpointStore:
    return CheckpointStore(root, world=World(), retention=Retention(last=keep_last))


def save(store: CheckpointStore, step: int, value: float = 1.0) -> Path:
    with store.staging(step) as stage:
        write_tree(stage.folder, "optimizer", {"w": torch.full((50,), value), "step": step})
        (stage.folder / "inner").mkdir()
        (stage.folder / "inner" / "notes.txt").write_text("notes")
        (stage.folder / "empty.txt").write_text("")
        for name in ("trainer_state.json", "progress.json"):
            (stage.folder / name).write_text("{}")
    return store.root / f"checkpoint-{step}"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".surestep-")}


def steps(store: CheckpointStore) -> list[int | None]:
    return [step_of(path) for path in checkpoints_in(store.root)]


def run_python(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script of which no coverage is measured: some are killed, and some may not write a file of that size."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return server().run(["-c", script], env=environment)
