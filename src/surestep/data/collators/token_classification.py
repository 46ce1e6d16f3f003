"""Padding of samples that have a label for each token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from surestep.data.collators.base import IGNORED, DataCollatorMixin, integers, pad, pad_lists, split_labels


@dataclass
class DataCollatorForTokenClassification(DataCollatorMixin):
    """Pad with the tokenizer, and the labels (`label` or `labels`) to the same length with `label_pad_token_id`.

    `padding`, `max_length` and `pad_to_multiple_of` are those of `DataCollatorWithPadding`.
    """

    tokenizer: Any
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    label_pad_token_id: int = IGNORED
    return_tensors: str = "pt"

    def torch_call(self, features: Sequence[Mapping[str, Any]]) -> Any:
        """Return a padded batch of tensors; labels are int64 of the shape of `input_ids`."""
        return self._collate(features, "pt")

    def numpy_call(self, features: Sequence[Mapping[str, Any]]) -> Any:
        """Return a padded batch of arrays; labels are int64 of the shape of `input_ids`."""
        return self._collate(features, "np")

    def _collate(self, features: Sequence[Mapping[str, Any]], kind: str) -> Any:
        name, labels, rest = split_labels(features)
        batch = pad(
            self.tokenizer,
            rest,
            padding=self.padding,
            max_length=self.max_length,
            pad_to_multiple_of=self.pad_to_multiple_of,
            return_tensors=kind,
        )
        if labels is not None:
            length = batch["input_ids"].shape[1]
            rows = pad_lists(labels, length, self.label_pad_token_id, self.tokenizer.padding_side)
            batch[name] = integers(rows, kind)
        return batch
