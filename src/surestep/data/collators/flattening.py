"""Batches without padding: all samples one after the other in a single row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from surestep.data.collators.base import IGNORED, as_list, check_kind
from surestep.data.collators.default import DefaultDataCollator

_LONG = frozenset({"input_ids", "labels", "position_ids"})
_ROWS = _LONG | {"seq_idx"}


@dataclass
class DataCollatorWithFlattening(DefaultDataCollator):
    """Concatenate the samples of a batch to one row of `input_ids` and `labels`, 1 x tokens.

    The first label of each sample is `separator_id`, so that no sample predicts the next one's beginning; samples
    without `labels` are labelled by their inputs. `position_ids` begin anew, at `position_ids_start`, with each
    sample (2 for models that keep the first positions for padding, as RoBERTa does). `return_flash_attn_kwargs` adds
    the borders that variable-length attention takes, `return_seq_idx` the number of each token's sample. Only for
    models whose attention heeds one of these.
    """

    _: KW_ONLY
    return_position_ids: bool = True
    separator_id: int = IGNORED
    return_flash_attn_kwargs: bool = False
    return_seq_idx: bool = False
    position_ids_start: int = 0

    def __call__(
        self,
        features: Sequence[Mapping[str, Any]],
        return_tensors: str | None = None,
        separator_id: int | None = None,
    ) -> dict[str, Any]:
        """Return the flattened batch; ids, labels and positions are int64, borders and numbers int32."""
        kind = check_kind(self.return_tensors if return_tensors is None else return_tensors)
        separator = self.separator_id if separator_id is None else separator_id
        samples = [as_list(feature["input_ids"]) for feature in features]
        labels = [as_list(feature["labels"]) for feature in features] if "labels" in features[0] else samples
        lengths = [len(sample) for sample in samples]
        batch: dict[str, Any] = {
            "input_ids": [token for sample in samples for token in sample],
            "labels": [token for label in labels for token in [separator, *label[1:]]],
        }
        if self.return_position_ids:
            first = self.position_ids_start
            batch["position_ids"] = [place for length in lengths for place in range(first, first + length)]
        if self.return_seq_idx:
            batch["seq_idx"] = [number for number, length in enumerate(lengths) for _ in range(length)]
        if self.return_flash_attn_kwargs:
            batch["cu_seq_lens_q"] = batch["cu_seq_lens_k"] = [0, *accumulate(lengths)]
        arrays = {name: _array(values, name, kind) for name, values in batch.items()}
        if self.return_flash_attn_kwargs:
            arrays["max_length_q"] = arrays["max_length_k"] = max(lengths)
        return arrays


def _array(values: list[int], name: str, kind: str) -> Any:
    rows = [values] if name in _ROWS else values
    if kind == "pt":
        return torch.tensor(rows, dtype=torch.int64 if name in _LONG else torch.int32)
    return np.array(rows, dtype=np.int64 if name in _LONG else np.int32)
