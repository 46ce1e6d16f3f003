"""Permutation language modelling, as XLNet is trained."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from surestep.data.collators.base import IGNORED, DataCollatorMixin, stack_tokens
from surestep.errors import DataError


class _Draws(Protocol):
    def span(self, longest: int) -> int: ...

    def start(self, room: int) -> int: ...

    def order(self, size: int) -> Any: ...


class _TorchDraws:
    """Draws from torch's global generator."""

    def span(self, longest: int) -> int:
        return int(torch.randint(1, longest + 1, (1,)).item())

    def start(self, room: int) -> int:
        return int(torch.randint(room + 1, (1,)).item())

    def order(self, size: int) -> Any:
        return torch.randperm(size).numpy()


class _NumpyDraws:
    """Draws from the global generators of Python and numpy.

    Both bounds are one higher than for tensors: so the original draws its arrays, and equal seeds give equal numbers.
    """

    def span(self, longest: int) -> int:
        return random.randint(1, longest + 1)

    def start(self, room: int) -> int:
        return random.randint(0, room + 1)

    def order(self, size: int) -> Any:
        return np.random.permutation(size)


@dataclass
class DataCollatorForPermutationLanguageModeling(DataCollatorMixin):
    """Mask spans, and draw for each sample the order in which its masked tokens are predicted.

    Spans of up to `max_span_length` tokens are masked, each within a context of `1 / plm_probability` times its
    length. The batch has `input_ids`, `labels` (-100 where nothing is masked), `perm_mask` (samples x tokens x
    tokens: 1 where the first token must not see the second) and `target_mapping` (the same shape, the identity).
    Samples must have an even number of tokens: half of them is what the model is assumed to remember.
    """

    tokenizer: Any
    plm_probability: float = 1 / 6
    max_span_length: int = 5
    return_tensors: str = "pt"

    def torch_call(self, examples: Sequence[Any]) -> dict[str, Any]:
        """Return a batch of tensors; `examples` are sequences of ids, or mappings with `input_ids`."""
        return self._collate(examples, "pt")

    def numpy_call(self, examples: Sequence[Any]) -> dict[str, Any]:
        """Return a batch of arrays; `examples` are sequences of ids, or mappings with `input_ids`."""
        return self._collate(examples, "np")

    def torch_mask_tokens(self, inputs: Any) -> tuple[Any, Any, Any, Any]:
        """Return the masked inputs, permutation mask, target mapping and labels of a tensor of ids."""
        results = self._mask(inputs.numpy(), _TorchDraws())
        masked, perm_mask, target_mapping, labels = (torch.from_numpy(result) for result in results)
        return masked, perm_mask, target_mapping, labels

    def numpy_mask_tokens(self, inputs: Any) -> tuple[Any, Any, Any, Any]:
        """Return the masked inputs, permutation mask, target mapping and labels of an array of ids."""
        return self._mask(inputs, _NumpyDraws())

    def _collate(self, examples: Sequence[Any], kind: str) -> dict[str, Any]:
        if isinstance(examples[0], Mapping):
            examples = [example["input_ids"] for example in examples]
        ids = stack_tokens(examples, self.tokenizer, None, kind)
        mask_tokens = self.torch_mask_tokens if kind == "pt" else self.numpy_mask_tokens
        return dict(zip(("input_ids", "perm_mask", "target_mapping", "labels"), mask_tokens(ids), strict=True))

    def _mask(self, ids: Any, draws: _Draws) -> tuple[Any, Any, Any, Any]:
        if self.tokenizer.mask_token is None:
            raise DataError(
                f"permutation language modelling needs a mask token, and {type(self.tokenizer).__name__} has none; "
                "take a tokenizer with one"
            )
        rows, length = ids.shape
        if length % 2 != 0:
            raise DataError(
                f"permutation language modelling needs samples of an even number of tokens, and a batch has {length}; "
                "truncate or pad them to an even length"
            )
        inputs, labels = ids.astype(np.int64), ids.astype(np.int64)
        spans = np.stack([self._spans(length, draws) for _ in range(rows)])
        special = np.array(
            [self.tokenizer.get_special_tokens_mask(row, already_has_special_tokens=True) for row in labels.tolist()],
            dtype=bool,
        )
        if self.tokenizer.pad_token is not None:
            special |= labels == self.tokenizer.pad_token_id
        masked = spans & ~special
        inputs[masked] = self.tokenizer.mask_token_id
        labels[~masked] = IGNORED
        perm_mask = np.stack(
            [_permuted(row, functional, draws) for row, functional in zip(masked, special, strict=True)]
        )
        target_mapping = np.broadcast_to(np.eye(length, dtype=np.float32), perm_mask.shape).copy()
        return inputs, perm_mask, target_mapping, labels

    def _spans(self, length: int, draws: _Draws) -> Any:
        """Draw the masked spans of one sample, as a vector of bools."""
        spans = np.zeros(length, dtype=bool)
        context_start = 0
        while context_start < length:
            span = draws.span(self.max_span_length)
            context = int(span / self.plm_probability)
            start = context_start + draws.start(context - span)
            spans[start : start + span] = True
            context_start += context
        return spans


def _permuted(masked: Any, functional: Any, draws: _Draws) -> Any:
    """Draw an order for one sample, and return which tokens (columns) are hidden from which (rows).

    The halves are permuted alike, so that neither sees into the other. Plain tokens that are not masked come before
    all: everybody sees them, and they see none of the masked.
    """
    half = len(masked) // 2
    order = draws.order(half)
    place = np.concatenate([order, order + half])
    place[~masked & ~functional] = -1
    return ((place[:, None] <= place[None, :]) & masked).astype(np.float32)
