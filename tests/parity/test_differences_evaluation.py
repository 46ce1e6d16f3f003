"""What evaluations return and refuse otherwise than in the original, on purpose: both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import Dataset

import surestep
from tests.parity.differences import shows
from tests.parity.models import Net, Points

SIDES = [transformers, surestep]


class Ragged(Dataset):
    """Sentences of many lengths; the label is the number of the sample."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> dict[str, Any]:
        # Past the end an IndexError ends an iteration.
        return {"input_ids": torch.ones(1 + range(20)[index] * 7 % 13, dtype=torch.long), "labels": index}


def collate(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    tokens = nn.utils.rnn.pad_sequence([sample["input_ids"] for sample in samples], batch_first=True)
    return {"input_ids": tokens, "labels": torch.tensor([sample["labels"] for sample in samples])}


class Sums(nn.Module):
    """Gives the length of each sentence."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        sums = self.weight * input_ids.sum(1, keepdim=True)
        return {"loss": sums.mean(), "logits": sums}


def trainer(side: Any, folder: Path, model: Any, collator: Any = None, **settings: Any) -> Any:
    quiet = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "per_device_eval_batch_size": 4}
    args = side.TrainingArguments(str(folder), **{**quiet, **settings})
    return side.Trainer(model, args, data_collator=collator)


@shows("V1")
def test_predictions_of_grouped_batches_come_in_the_order_of_the_dataset(tmp_path: Path) -> None:
    theirs, ours = (
        trainer(side, tmp_path, Sums(), collate, train_sampling_strategy="group_by_length").predict(Ragged())
        for side in SIDES
    )
    lengths = np.array([1 + index * 7 % 13 for index in range(20)])

    assert theirs.label_ids.tolist() != list(range(20))
    np.testing.assert_array_equal(theirs.predictions[:, 0], lengths[theirs.label_ids])
    assert ours.label_ids.tolist() == list(range(20))
    np.testing.assert_array_equal(ours.predictions[:, 0], lengths)
    settings = {"train_sampling_strategy": "group_by_length", "eval_do_concat_batches": False}
    apart = trainer(surestep, tmp_path, Sums(), collate, **settings).predict(Ragged())
    assert np.concatenate(apart.label_ids).tolist() == theirs.label_ids.tolist()


@shows("V2")
def test_what_exceeds_the_limit_is_mapped(tmp_path: Path) -> None:
    theirs, ours, unlimited = (
        trainer(side, tmp_path, Net(0.0), **settings).predict(Points(20))
        for side, settings in (
            (transformers, {}),
            (surestep, {"eval_spill_bytes": 64}),
            (surestep, {"eval_spill_bytes": None}),
        )
    )

    assert [type(output.predictions) for output in (theirs, ours, unlimited)] == [np.ndarray, np.memmap, np.ndarray]
    assert theirs.predictions.shape == ours.predictions.shape
    assert surestep.TrainingArguments("out").eval_spill_bytes == 2**30


@shows("V3")
def test_samples_that_a_collator_loses_are_missed(tmp_path: Path) -> None:
    def loses(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        return collate([sample for sample in samples if sample["labels"] % 3] or samples)

    theirs = trainer(transformers, tmp_path, Sums(), loses).predict(Ragged())
    assert len(theirs.predictions) == 13
    with pytest.raises(ValueError, match=r"has 20 samples, and 13 rows came to the model: the data_collator leaves"):
        trainer(surestep, tmp_path, Sums(), loses).predict(Ragged())

    class OwnLoader(surestep.Trainer):
        def get_test_dataloader(self, test_dataset: Any) -> Any:
            few = torch.utils.data.Subset(test_dataset, [1, 2, 4])
            return torch.utils.data.DataLoader(few, batch_size=4, collate_fn=loses, sampler=[0, 1])

    args = surestep.TrainingArguments(str(tmp_path), use_cpu=True, disable_tqdm=True, report_to="none")
    assert len(OwnLoader(Sums(), args, data_collator=loses).predict(Ragged()).predictions) == 2


class Boxes(Sums):
    """Gives a list with an item for each sample."""

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Any:
        del labels
        return {"logits": [row.repeat(2) for row in input_ids.sum(1, keepdim=True)]}


@shows("V4")
def test_lists_of_samples_are_appended(tmp_path: Path) -> None:
    given = {"eval_use_gather_object": True}
    unlabelled = [{"input_ids": torch.ones(length, dtype=torch.long)} for length in range(1, 9)]

    def pad(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        return {"input_ids": nn.utils.rnn.pad_sequence([one["input_ids"] for one in samples], batch_first=True)}

    theirs, ours, apart = (
        trainer(side, tmp_path, Boxes(), pad, **given, **settings).predict(unlabelled).predictions
        for side, settings in ((transformers, {}), (surestep, {}), (surestep, {"eval_do_concat_batches": False}))
    )

    assert [one.tolist() for one in theirs] == [[length, length, length + 4, length + 4] for length in range(1, 5)]
    assert [one.tolist() for one in ours] == [[length, length] for length in range(1, 9)]
    assert [len(batch) for batch in apart] == [4, 4]
