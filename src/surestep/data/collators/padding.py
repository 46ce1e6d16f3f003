"""Padding to the longest sample of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from surestep.data.collators.base import pad


@dataclass
class DataCollatorWithPadding:
    """Pad with the tokenizer (or feature extractor), and call `label` or `label_ids` by the name `labels`.

    `padding` is True or "longest", "max_length" (to `max_length`, else to the most the model takes), or False or
    "do_not_pad"; `pad_to_multiple_of` rounds the length up.
    """

    tokenizer: Any
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    return_tensors: str = "pt"

    def __call__(self, features: Sequence[Any]) -> Any:
        """Return what the tokenizer's `pad` gives for `features`, labels renamed."""
        batch = pad(
            self.tokenizer,
            features,
            padding=self.padding,
            max_length=self.max_length,
            pad_to_multiple_of=self.pad_to_multiple_of,
            return_tensors=self.return_tensors,
        )
        for name in ("label", "label_ids"):
            if name in batch:
                batch["labels"] = batch[name]
                del batch[name]
        return batch
