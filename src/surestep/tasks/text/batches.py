"""Texts of different lengths as samples and as batches, whatever makes numbers of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from surestep.tasks.labels import IntArray


class TextDataset(Dataset[dict[str, Any]]):
    """Samples with `input_ids`, a list of numbers, and `labels`, a class id."""

    def __init__(self, numbers: Sequence[list[int]], label_ids: IntArray) -> None:
        self._numbers, self._labels = numbers, label_ids.tolist()

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self._numbers[index], "labels": self._labels[index]}


@dataclass(frozen=True)
class PadTexts:
    """Make a batch of samples: texts are filled up to the longest one of the batch."""

    pad_id: int

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return `input_ids` and `attention_mask` of shape (batch, positions), and `labels` of shape (batch,)."""
        batch = pad_batch([sample["input_ids"] for sample in samples], self.pad_id)
        return batch | {"labels": torch.tensor([sample["labels"] for sample in samples])}


def pad_batch(numbers: Sequence[Sequence[int]], pad_id: int) -> dict[str, Tensor]:
    """Return `input_ids` and `attention_mask` (1 on words, 0 on filling), both of shape (batch, positions)."""
    longest = max(len(row) for row in numbers)
    input_ids = torch.tensor([[*row, *[pad_id] * (longest - len(row))] for row in numbers])
    lengths = torch.tensor([len(row) for row in numbers])
    return {"input_ids": input_ids, "attention_mask": (torch.arange(longest) < lengths[:, None]).long()}


class TextInputs(ABC):
    """The input form of texts; a tokenizer says what their numbers are."""

    # The number that fills short texts of a batch up.
    pad_id: int = 0

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the numbers of each text, at least one and no more than the model takes."""

    @property
    def collate(self) -> PadTexts:
        """How samples become a batch."""
        return PadTexts(self.pad_id)

    def batch(self, values: Sequence[Any]) -> dict[str, Tensor]:
        """Return what the model takes for texts."""
        return pad_batch(self.encode([str(value) for value in values]), self.pad_id)
