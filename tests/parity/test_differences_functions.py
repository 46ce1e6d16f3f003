"""What functions under the original's names do otherwise, on purpose: both sides."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import get_scheduler as their_scheduler
from transformers import optimization, trainer_pt_utils, trainer_utils
from transformers.integrations import integration_utils

import surestep
from surestep.errors import ArgumentError, MissingPackageError
from surestep.optional import installed
from tests.parity.differences import shows


@shows("F1")
def test_a_folder_without_a_step_is_no_checkpoint(tmp_path: Path) -> None:
    def left(room: Any, root: Path) -> set[str]:
        for place, name in enumerate(("best", "1", "2")):
            (root / f"checkpoint-{name}").mkdir(parents=True)
            os.utime(root / f"checkpoint-{name}", (1000 + 10 * place,) * 2)
        room.rotate_checkpoints(str(root), 1, use_mtime=True)
        return {path.name for path in root.iterdir()}

    assert left(trainer_utils, tmp_path / "theirs") == {"checkpoint-2"}
    assert left(surestep, tmp_path / "ours") == {"checkpoint-best", "checkpoint-2"}


@shows("F2")
def test_nested_arrays_are_filled_as_asked() -> None:
    arrays = (np.zeros((1, 2)),)

    assert trainer_pt_utils.nested_new_like(arrays, 2, padding_index=7)[0].tolist() == [[-100, -100]] * 2
    assert surestep.nested_new_like(arrays, 2, padding_index=7)[0].tolist() == [[7, 7]] * 2


@shows("F3")
def test_tables_that_nothing_would_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(optimization.TYPE_TO_SCHEDULER_FUNCTION, "mine", len)
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "mine", object)

    for table in (surestep.TYPE_TO_SCHEDULER_FUNCTION, surestep.INTEGRATION_TO_CALLBACK):
        assert "mine" not in table
        with pytest.raises(TypeError):
            table["mine"] = len


@shows("F4")
def test_the_last_step_repeats_no_sample() -> None:
    def drawn(kind: Any) -> list[int]:
        ranks = [kind([1] * 10, 8, 2, 2, shuffle=False, rank=rank, drop_last=False) for rank in (0, 1)]
        return sorted(index for rank in ranks for batch in rank for index in batch)

    assert drawn(trainer_pt_utils.BatchRebalanceSampler) == [0, 0, 1, 1, *range(2, 10)]
    assert drawn(surestep.BatchRebalanceSampler) == [*range(10)]


@shows("F5")
@pytest.mark.parametrize("name", ["constant", "constant_with_warmup"])
def test_keywords_that_a_schedule_does_not_take(name: str) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    given = {"num_warmup_steps": 0, "scheduler_specific_kwargs": {"num_cycles": 3}}

    assert their_scheduler(name, optimizer, **given).get_last_lr() == [1.0]
    with pytest.raises(ArgumentError, match="has num_cycles, which the schedule"):
        surestep.get_scheduler(name, optimizer, **given)


@shows("F6")
def test_a_measure_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_utils, "is_psutil_available", lambda: False)
    monkeypatch.setitem(sys.modules, "psutil", None)
    installed.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    def train(kind: Any) -> dict[str, float]:
        tracker, metrics = kind(skip_memory_metrics=False), {}
        tracker.start()
        tracker.stop_and_update_metrics(metrics)
        return metrics

    assert train(trainer_utils.TrainerMemoryTracker) == {}
    try:
        with pytest.raises(MissingPackageError, match="psutil"):
            train(surestep.TrainerMemoryTracker)
    finally:
        monkeypatch.undo()
        installed.cache_clear()
