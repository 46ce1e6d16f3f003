"""Padding of samples that hold several choices each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from surestep.data.collators.base import DataCollatorMixin, integers, pad, split_labels


@dataclass
class DataCollatorForMultipleChoice(DataCollatorMixin):
    """Pad all choices of all samples to one length: each value becomes samples x choices x tokens.

    `label` or `labels`, where there, becomes `labels`, one int64 a sample. `padding`, `max_length` and
    `pad_to_multiple_of` are those of `DataCollatorWithPadding`.
    """

    tokenizer: Any
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    return_tensors: str = "pt"

    def torch_call(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return a padded batch of tensors."""
        return self._collate(examples, "pt")

    def numpy_call(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return a padded batch of arrays."""
        return self._collate(examples, "np")

    def _collate(self, examples: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Any]:
        _, labels, rest = split_labels(examples)
        choices = len(examples[0]["input_ids"])
        flat = [{key: value[choice] for key, value in one.items()} for one in rest for choice in range(choices)]
        padded = pad(
            self.tokenizer,
            flat,
            padding=self.padding,
            max_length=self.max_length,
            pad_to_multiple_of=self.pad_to_multiple_of,
            return_tensors=kind,
        )
        batch = {key: value.reshape(len(examples), choices, -1) for key, value in padded.items()}
        if labels is not None:
            batch["labels"] = integers(labels, kind)
        return batch
