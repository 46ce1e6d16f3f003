"""What the collators share: the choice of tensors or arrays, padding, and reading labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from surestep.errors import ArgumentError, DataError

# The id that losses ignore.
IGNORED = -100
_QUIETED = "Asking-to-pad-a-fast-tokenizer"
_METHODS = {"pt": "torch_call", "np": "numpy_call"}


class DataCollatorMixin:
    """The base of collators that give torch tensors ("pt") or numpy arrays ("np").

    A subclass has a `return_tensors` and the methods `torch_call` and `numpy_call`, or one of them.
    """

    return_tensors: str = "pt"

    def __call__(self, features: Sequence[Any], return_tensors: str | None = None) -> Any:
        """Collate `features`, as `return_tensors` says or else as the collator is set."""
        kind = check_kind(self.return_tensors if return_tensors is None else return_tensors)
        call = getattr(self, _METHODS[kind], None)
        if call is None:
            raise ArgumentError(
                f"return_tensors={kind!r}, and {type(self).__name__} has no {_METHODS[kind]}; add the method, or set "
                "the other kind"
            )
        return call(features)


def check_kind(return_tensors: str) -> str:
    """Return `return_tensors` if it is "pt" or "np"; raise `ArgumentError` otherwise."""
    if return_tensors not in _METHODS:
        raise ArgumentError(f"return_tensors={return_tensors!r}; write 'pt' for torch tensors or 'np' for numpy arrays")
    return return_tensors


def integers(values: Any, kind: str) -> Any:
    """Return nested lists of numbers as an int64 tensor or array."""
    return torch.tensor(values, dtype=torch.int64) if kind == "pt" else np.array(values, dtype=np.int64)


def as_list(values: Any) -> list[Any]:
    """Return a sequence, tensor or array as a list of Python numbers."""
    return values.tolist() if hasattr(values, "tolist") else list(values)


def pad(tokenizer: Any, features: Sequence[Any], **options: Any) -> Any:
    """Pad with the tokenizer's own `pad`, without the advice that fast tokenizers give on calling it."""
    said = getattr(tokenizer, "deprecation_warnings", None)
    if said is None:
        return tokenizer.pad(features, **options)
    before = said.get(_QUIETED, False)
    said[_QUIETED] = True
    try:
        return tokenizer.pad(features, **options)
    finally:
        said[_QUIETED] = before


def split_labels(features: Sequence[Mapping[str, Any]]) -> tuple[str, list[Any] | None, list[dict[str, Any]]]:
    """Return the name of the labels ("label" or "labels"), their values, and the features without them.

    The values are None where the first sample has no labels.
    """
    name = "label" if "label" in features[0] else "labels"
    labels = [feature[name] for feature in features] if name in features[0] else None
    rest = [{key: value for key, value in feature.items() if key != name} for feature in features]
    return name, labels, rest


def pad_lists(rows: Iterable[Any], length: int, value: int, side: str) -> list[list[Any]]:
    """Fill each row up to `length` with `value`, on the `side` that the tokenizer pads ("right" or "left")."""
    lists = [as_list(row) for row in rows]
    if side == "right":
        return [row + [value] * (length - len(row)) for row in lists]
    return [[value] * (length - len(row)) + row for row in lists]


def stack_tokens(examples: Sequence[Any], tokenizer: Any, pad_to_multiple_of: int | None, kind: str) -> Any:
    """Stack sequences of token ids into one matrix, padded to the longest with the tokenizer's pad token.

    Tensors and arrays keep their type of number; lists become int64.
    """
    if isinstance(examples[0], list | tuple) or (kind == "pt" and isinstance(examples[0], np.ndarray)):
        examples = [integers(example, kind) for example in examples]
    longest = max(len(example) for example in examples)
    multiple = pad_to_multiple_of or 1
    length = -(-longest // multiple) * multiple
    if all(len(example) == length for example in examples):
        return torch.stack(list(examples)) if kind == "pt" else np.stack(examples)
    if tokenizer.pad_token is None:
        raise DataError(
            f"the samples differ in length and {type(tokenizer).__name__} has no pad token to fill them with; "
            "set tokenizer.pad_token (for example to tokenizer.eos_token)"
        )
    shape = (len(examples), length)
    if kind == "pt":
        result: Any = examples[0].new_full(shape, tokenizer.pad_token_id)
    else:
        result = np.full(shape, tokenizer.pad_token_id, dtype=examples[0].dtype)
    for row, example in zip(result, examples, strict=True):
        row[slice(len(example)) if tokenizer.padding_side == "right" else slice(length - len(example), None)] = example
    return result
