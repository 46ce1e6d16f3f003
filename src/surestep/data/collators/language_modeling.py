"""Language modelling: labels from the inputs, masked anew in each batch or shifted by the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from surestep.data.collators.base import IGNORED, DataCollatorMixin, pad, stack_tokens
from surestep.data.collators.masking import NumpyDraws, TorchDraws, spread_over_words, word_numbers
from surestep.errors import ArgumentError, DataError
from surestep.logs import get_logger
from surestep.runtime.generators import derive

_logger = get_logger(__name__)


@dataclass
class DataCollatorForLanguageModeling(DataCollatorMixin):
    """Pad the inputs and make the labels from them.

    With `mlm` a token is chosen with `mlm_probability`; of the chosen, `mask_replace_prob` become the mask token,
    `random_replace_prob` a random token, and the rest stay; labels are -100 wherever nothing was chosen. Special
    tokens are never chosen (`special_tokens_mask` in the samples saves asking the tokenizer). `whole_word_mask`
    chooses words by the samples' `offset_mapping` and replaces them by the mask token alone. Without `mlm` the labels
    are the inputs, -100 where padded.

    Without a `seed` the draws come from the global generator (of torch, or of numpy for arrays). With one they come
    from a generator of its own, seeded with `seed`, plus the worker's number in a loader's workers. A trainer seeds
    that one before each batch (`set_batch_seed`), so that the masks follow from `seed` and the position in the data.
    """

    tokenizer: Any
    mlm: bool = True
    whole_word_mask: bool = False
    mlm_probability: float | None = 0.15
    mask_replace_prob: float = 0.8
    random_replace_prob: float = 0.1
    pad_to_multiple_of: int | None = None
    return_tensors: str = "pt"
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.mlm:
            self._check_masking()
        elif self.whole_word_mask:
            raise ArgumentError("whole_word_mask=True needs mlm=True; set it, or leave whole_word_mask out")
        self._check_replacing()
        self.generator: Any = None
        self._worker: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy in another process makes its own generator.
        return {**self.__dict__, "generator": None}

    def _check_masking(self) -> None:
        if self.tokenizer.mask_token is None:
            raise ArgumentError(
                f"mlm=True needs a mask token, and {type(self.tokenizer).__name__} has none; "
                "set mlm=False to train a causal model, or take a tokenizer with a mask token"
            )
        if self.mlm_probability is None or not 0 <= self.mlm_probability <= 1:
            raise ArgumentError(f"mlm_probability={self.mlm_probability}; give a number from 0 to 1")
        self.mlm_probability = float(self.mlm_probability)

    def _check_replacing(self) -> None:
        for name in ("mask_replace_prob", "random_replace_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ArgumentError(f"{name}={getattr(self, name)}; give a number from 0 to 1")
        if self.mask_replace_prob + self.random_replace_prob > 1:
            raise ArgumentError(
                f"mask_replace_prob={self.mask_replace_prob} and random_replace_prob={self.random_replace_prob} sum to "
                "more than 1; what they leave is the share of chosen tokens that stay as they are"
            )
        if self.whole_word_mask and self.mask_replace_prob < 1:
            _logger.warning(
                "whole_word_mask replaces words by the mask token alone: mask_replace_prob is 1 and "
                "random_replace_prob 0 instead of %s and %s.",
                self.mask_replace_prob,
                self.random_replace_prob,
            )
            self.mask_replace_prob, self.random_replace_prob = 1, 0
        self.mask_replace_prob = float(self.mask_replace_prob)
        self.random_replace_prob = float(self.random_replace_prob)

    def torch_call(self, examples: Sequence[Any]) -> Any:
        """Return a batch of tensors with `input_ids` and `labels`; `examples` are mappings or sequences of ids."""
        return self._collate(examples, "pt")

    def numpy_call(self, examples: Sequence[Any]) -> Any:
        """Return a batch of arrays with `input_ids` and `labels`; `examples` are mappings or sequences of ids."""
        return self._collate(examples, "np")

    def torch_mask_tokens(
        self, inputs: Any, special_tokens_mask: Any | None = None, offset_mapping: Any | None = None
    ) -> tuple[Any, Any]:
        """Mask the tensor `inputs` in place and return it with its labels."""
        labels = inputs.clone()
        return self._mask(inputs, labels, special_tokens_mask, offset_mapping, TorchDraws(self.generator))

    def numpy_mask_tokens(
        self, inputs: Any, special_tokens_mask: Any | None = None, offset_mapping: Any | None = None
    ) -> tuple[Any, Any]:
        """Mask the array `inputs` in place and return it with its labels."""
        labels = np.copy(inputs)
        return self._mask(inputs, labels, special_tokens_mask, offset_mapping, NumpyDraws(self.generator))

    def get_generator(self, seed: int) -> Any:
        """Return a generator of the kind that `return_tensors` draws from."""
        return torch.Generator().manual_seed(seed) if self.return_tensors == "pt" else np.random.default_rng(seed)

    def create_rng(self) -> None:
        """Make the generator of this process, or of this worker of a loader."""
        if self.seed is None:
            raise ArgumentError("seed=None; give the collator a seed to have a generator of its own")
        self._worker = _worker()
        self.generator = self.get_generator(self.seed + (self._worker or 0))

    def set_batch_seed(self, seed: int) -> None:
        """Have the next batch drawn by `seed` and the collator's own, if it has one."""
        if self.seed is not None:
            self._worker = _worker()
            self.generator = self.get_generator(derive(seed, part=self.seed)[0])

    def _collate(self, examples: Sequence[Any], kind: str) -> Any:
        # A worker that was forked off with the generator of another process needs its own.
        if self.seed is not None and (self.generator is None or self._worker != _worker()):
            self.create_rng()
        if isinstance(examples[0], Mapping):
            batch = pad(self.tokenizer, examples, return_tensors=kind, pad_to_multiple_of=self.pad_to_multiple_of)
        else:
            batch = {"input_ids": stack_tokens(examples, self.tokenizer, self.pad_to_multiple_of, kind)}
        special = batch.pop("special_tokens_mask", None)
        offsets = batch.pop("offset_mapping", None)
        if self.mlm:
            mask_tokens = self.torch_mask_tokens if kind == "pt" else self.numpy_mask_tokens
            batch["input_ids"], batch["labels"] = mask_tokens(
                batch["input_ids"], special_tokens_mask=special, offset_mapping=offsets
            )
            return batch
        labels = batch["input_ids"].clone() if kind == "pt" else np.copy(batch["input_ids"])
        if self.tokenizer.pad_token_id is not None:
            labels[labels == self.tokenizer.pad_token_id] = IGNORED
        batch["labels"] = labels
        return batch

    def _mask(
        self, inputs: Any, labels: Any, special: Any | None, offsets: Any | None, draws: TorchDraws | NumpyDraws
    ) -> tuple[Any, Any]:
        chosen = self._choose(labels, special, offsets, draws)
        labels[~chosen] = IGNORED
        replaced = draws.coins(np.full(labels.shape, self.mask_replace_prob)) & chosen
        inputs[replaced] = self.tokenizer.mask_token_id
        if self.mask_replace_prob == 1 or self.random_replace_prob == 0:
            return inputs, labels
        # Of those that the first coin left.
        chance = self.random_replace_prob / (1 - self.mask_replace_prob)
        swapped = draws.coins(np.full(labels.shape, chance)) & chosen & ~replaced
        inputs[swapped] = draws.tokens(len(self.tokenizer), swapped)
        return inputs, labels

    def _choose(self, ids: Any, special: Any | None, offsets: Any | None, draws: TorchDraws | NumpyDraws) -> Any:
        """Return where tokens are chosen, drawing a coin for each."""
        if special is None:
            special = [
                self.tokenizer.get_special_tokens_mask(row, already_has_special_tokens=True) for row in ids.tolist()
            ]
        never = np.asarray(special).astype(bool)
        chances = np.full(never.shape, self.mlm_probability)
        if not self.whole_word_mask:
            chances[never] = 0
            return draws.coins(chances)
        if offsets is None:
            raise DataError(
                "whole_word_mask=True needs an 'offset_mapping' in each sample; tokenise with a fast tokenizer and "
                "return_offsets_mapping=True, and keep the column (remove_unused_columns=False)"
            )
        words, begins = word_numbers(np.asarray(offsets), never)
        chances[~begins] = 0
        chosen = draws.coins(chances)
        spread = spread_over_words(np.asarray(chosen), words)
        return torch.from_numpy(spread) if isinstance(chosen, torch.Tensor) else spread


def _worker() -> int | None:
    """Return the number of the loader's worker that this process is, or None outside of workers."""
    info = get_worker_info()
    return None if info is None else info.id
