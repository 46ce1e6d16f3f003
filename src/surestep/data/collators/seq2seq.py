"""Padding of inputs and labels, each to its own length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from surestep.data.collators.base import IGNORED, as_list, check_kind, integers, pad, pad_lists, split_labels
from surestep.errors import DataError


@dataclass
class DataCollatorForSeq2Seq:
    """Pad the inputs with the tokenizer, and the labels to a length of their own with `label_pad_token_id`.

    With a `model` that has `prepare_decoder_input_ids_from_labels` the batch gets its `decoder_input_ids` from there.
    Without labels, or where all are None, the batch has `labels=None`. `padding`, `max_length` (for the labels too)
    and `pad_to_multiple_of` are those of `DataCollatorWithPadding`.
    """

    tokenizer: Any
    model: Any | None = None
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    label_pad_token_id: int = IGNORED
    return_tensors: str = "pt"

    def __call__(self, features: Sequence[Mapping[str, Any]], return_tensors: str | None = None) -> Any:
        """Return a padded batch; labels that cannot be made one length raise `DataError`."""
        kind = check_kind(self.return_tensors if return_tensors is None else return_tensors)
        _, labels, rest = split_labels(features)
        batch = pad(
            self.tokenizer,
            rest,
            padding=self.padding,
            max_length=self.max_length,
            pad_to_multiple_of=self.pad_to_multiple_of,
            return_tensors=kind,
        )
        if labels is None or all(label is None for label in labels):
            batch["labels"] = None
            return batch
        batch["labels"] = self._labels(labels, kind)
        prepare = getattr(self.model, "prepare_decoder_input_ids_from_labels", None)
        if prepare is not None:
            batch["decoder_input_ids"] = prepare(labels=batch["labels"])
        return batch

    def _labels(self, labels: Sequence[Any], kind: str) -> Any:
        rows = [as_list(label) for label in labels]
        if self.padding is not False and self.padding != "do_not_pad":
            rows = pad_lists(rows, self._label_length(rows), self.label_pad_token_id, self.tokenizer.padding_side)
        lengths = {len(row) for row in rows}
        if len(lengths) > 1:
            raise DataError(
                f"labels of {min(lengths)} to {max(lengths)} tokens make no matrix with padding={self.padding!r} and "
                f"max_length={self.max_length}; truncate them when tokenising, or set padding=True"
            )
        return integers(rows, kind)

    def _label_length(self, rows: list[list[Any]]) -> int:
        fixed = self.max_length if self.padding == "max_length" else None
        length = max(len(row) for row in rows) if fixed is None else fixed
        multiple = self.pad_to_multiple_of or 1
        return -(-length // multiple) * multiple
