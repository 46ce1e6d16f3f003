"""A run over a stream, stopped and resumed in a new trainer, ends as if it had never stopped."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch.utils.data import IterableDataset, get_worker_info

from surestep.data.streams import ShuffledStream
from tests.parity.models import Net, Points
from tests.resume.rig import Row, assert_goes_on, checkpoints, resumed, straight

BASE = {"per_device_train_batch_size": 4, "max_steps": 12, "logging_steps": 3, "learning_rate": 1e-2}
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


class Augmented(IterableDataset[Any]):
    """Points with noise, shared out among workers, which say how far they have come."""

    def __init__(self) -> None:
        self.at = self.begin = 0

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        points = Points(30)
        part = list(range(30)) if info is None else list(range(info.id, 30, info.num_workers))
        self.at, self.begin = self.begin, 0
        for number in part[self.at :]:
            self.at += 1
            yield {**points[number], "x": points[number]["x"] + 0.1 * random.random()}

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.begin = state["at"]


def rows() -> Iterator[dict[str, Any]]:
    points = Points(30)
    for number in range(len(points)):
        yield {name: torch.as_tensor(value).tolist() for name, value in points[number].items()}


def table(**shuffled: Any) -> Any:
    stream = datasets.IterableDataset.from_generator(rows)
    # Behind the shuffling: how far a shuffle buffer of datasets reads ahead is not the same every time.
    return (stream.shuffle(**shuffled) if shuffled else stream).map(noisy).with_format("torch")


def quiet() -> Any:
    return datasets.IterableDataset.from_generator(rows).with_format("torch")


def noisy(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "x": [value + float(torch.rand(())) for value in row["x"]]}


ROWS = {
    "own": Row("own", BASE, {"model": lambda: Net(0.3), "train": Augmented}),
    "own, accumulated": Row(
        "own, accumulated", {**BASE, "gradient_accumulation_steps": 3}, {"model": lambda: Net(0.3), "train": Augmented}
    ),
    "own, workers": Row(
        "own, workers", {**BASE, "dataloader_num_workers": 2}, {"model": lambda: Net(0.3), "train": Augmented}
    ),
    "datasets": Row("datasets", BASE, {"model": lambda: Net(0.3), "train": table}),
    "windows": Row("windows", BASE, {"model": lambda: Net(0.3), "train": lambda: ShuffledStream(table(), 7, seed=3)}),
    "shuffle buffer": Row(
        "shuffle buffer", BASE, {"model": lambda: Net(0.3), "train": lambda: table(seed=1, buffer_size=6)}
    ),
    "global": Row("global", {**BASE, "data_seeding": "global"}, {"model": lambda: Net(0.3), "train": quiet}),
}


# Resumed at every step; the others, which are slower or go the same way, at some.
EVERY_STEP = {"own", "windows"}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_stream_resumed_at_any_step_ends_the_same(row: Row, tmp_path: Path) -> None:
    whole = straight(tmp_path / "whole", row)
    saved = checkpoints(tmp_path / "whole")
    assert len(saved) == 12

    for checkpoint in saved[:-1] if row.name in EVERY_STEP else saved[1:-1:4]:
        part = resumed(tmp_path / "part", row, checkpoint)
        assert_goes_on(whole, part, f"{row.name} from {checkpoint.name}")
