"""The collators under the path and the names that the original has for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from surestep.data.collators.base import DataCollatorMixin as DataCollatorMixin
from surestep.data.collators.base import as_list, pad, stack_tokens
from surestep.data.collators.default import DefaultDataCollator as DefaultDataCollator
from surestep.data.collators.default import default_data_collator as default_data_collator
from surestep.data.collators.flattening import DataCollatorWithFlattening as DataCollatorWithFlattening
from surestep.data.collators.language_modeling import DataCollatorForLanguageModeling as DataCollatorForLanguageModeling
from surestep.data.collators.multiple_choice import DataCollatorForMultipleChoice as DataCollatorForMultipleChoice
from surestep.data.collators.padding import DataCollatorWithPadding as DataCollatorWithPadding
from surestep.data.collators.permutation import (
    DataCollatorForPermutationLanguageModeling as DataCollatorForPermutationLanguageModeling,
)
from surestep.data.collators.seq2seq import DataCollatorForSeq2Seq as DataCollatorForSeq2Seq
from surestep.data.collators.token_classification import (
    DataCollatorForTokenClassification as DataCollatorForTokenClassification,
)

InputDataClass = Any
DataCollator = Callable[[list[InputDataClass]], dict[str, Any]]

pad_without_fast_tokenizer_warning = pad
tolist = as_list


def torch_default_data_collator(features: Sequence[Any]) -> dict[str, Any]:
    """Return the batch of `default_data_collator` in tensors."""
    return default_data_collator(features, "pt")


def numpy_default_data_collator(features: Sequence[Any]) -> dict[str, Any]:
    """Return the batch of `default_data_collator` in arrays."""
    return default_data_collator(features, "np")


def to_numpy(x: Any) -> np.ndarray[Any, Any]:
    """Return a tensor, array or list as an array on the host."""
    return x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x)


def _torch_collate_batch(examples: Sequence[Any], tokenizer: Any, pad_to_multiple_of: int | None = None) -> Any:
    """Stack token ids into a tensor; collators of scripts take it from here."""
    return stack_tokens(examples, tokenizer, pad_to_multiple_of, "pt")


def _numpy_collate_batch(examples: Sequence[Any], tokenizer: Any, pad_to_multiple_of: int | None = None) -> Any:
    """Stack token ids into an array."""
    return stack_tokens(examples, tokenizer, pad_to_multiple_of, "np")


@dataclass
class DataCollatorForWholeWordMask(DataCollatorForLanguageModeling):
    """A name of the 4.x years: `DataCollatorForLanguageModeling` with `whole_word_mask`."""

    whole_word_mask: bool = True
