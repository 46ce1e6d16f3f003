"""A run that the original began and this library ends with other batches: each sample of the epoch once."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest

from surestep.errors import CheckpointError
from tests.parity.compare import Seen
from tests.parity.models import Points
from tests.resume.test_foreign import Row, begin, go_on

SIZE = 30
DATA: dict[str, Any] = {"train": lambda: Points(SIZE)}
Log = pytest.LogCaptureFixture


def sizes(batch: int, accumulation: int = 1) -> dict[str, int]:
    return {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}


def goes_on(folder: Path, step: int, arguments: dict[str, Any]) -> Seen:
    return go_on(folder, Row("other batches", arguments, DATA), str(folder / f"checkpoint-{step}"))


def change(folder: Path, step: int, **changes: Any) -> None:
    """Rewrite what the state in a checkpoint says; None takes it out."""
    path = folder / f"checkpoint-{step}" / "trainer_state.json"
    state = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in state.items() if value is not None}))


@pytest.mark.parametrize("step", [1, 3, 8, 10])
@pytest.mark.parametrize("cut", [(8, 1), (3, 2), (4, 3)])
@pytest.mark.parametrize("before", [(4, 1)])
def test_the_samples_are_those_of_the_original_without_a_change(
    before: tuple[int, int], cut: tuple[int, int], step: int, tmp_path: Path
) -> None:
    whole = begin(tmp_path, Row("4", sizes(*before), DATA))
    part = goes_on(tmp_path, step, sizes(*cut))
    epoch, done = divmod(step, 8)
    left = SIZE - 4 * done
    steps = [math.ceil(math.ceil(count / cut[0]) / cut[1]) for count in (left, SIZE)]

    assert part.numbers == whole.numbers[epoch * SIZE + 4 * done :]
    assert part.state.global_step == part.state.max_steps == step + steps[0] + (1 - epoch) * steps[1]
    assert part.state.epoch == 2.0
    assert set(part.rates) == {0.0}


@pytest.mark.parametrize("step", [1, 2, 4])
def test_accumulation_is_told_by_the_steps(step: int, tmp_path: Path, caplog: Log) -> None:
    whole = begin(tmp_path, Row("4 x 3", sizes(4, 3), DATA))
    with caplog.at_level(logging.WARNING, logger="surestep"):
        part = goes_on(tmp_path, step, sizes(4, 1))
    epoch, done = divmod(step, 3)

    assert part.numbers == whole.numbers[epoch * SIZE + 12 * done :]
    assert part.state.global_step == step + 8 - 3 * done + 8 * (1 - epoch)


def test_older_versions_rounded_the_epoch(tmp_path: Path) -> None:
    whole = begin(tmp_path, Row("4", sizes(4), DATA))
    change(tmp_path, 3, epoch=0.38)
    assert goes_on(tmp_path, 3, sizes(8)).numbers == whole.numbers[12:]


@pytest.mark.parametrize(
    "changes", [{"train_batch_size": None}, {"epoch": 0.37}, {"global_step": 4}, {"train_batch_size": 5}]
)
def test_what_the_state_does_not_tell_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    begin(tmp_path, Row("4", sizes(4), DATA))
    change(tmp_path, 3, **changes)
    with pytest.raises(CheckpointError, match=r"does not tell which samples are left.*ignore_data_skip=True"):
        goes_on(tmp_path, 3, sizes(8))


def test_another_order_by_length_is_refused(tmp_path: Path) -> None:
    begin(tmp_path, Row("4", sizes(4), DATA))
    arguments = {**sizes(8), "train_sampling_strategy": "group_by_length", "length_column_name": "number"}
    options = {**DATA, "mixin": Lengths}
    with pytest.raises(CheckpointError, match="does not tell which samples are left"):
        go_on(tmp_path, Row("by length", arguments, options), str(tmp_path / "checkpoint-3"))


class Lengths:
    """A subclass that knows the lengths."""

    def _lengths(self, dataset: Any) -> list[int]:
        return [number % 7 + 1 for number in range(len(dataset))]
