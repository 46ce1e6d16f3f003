"""Words and their numbers: the tokenizer of the small text models, learnt from the training texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from surestep.tasks.text.batches import TextInputs

PAD, UNKNOWN = "[PAD]", "[UNK]"
# A run of letters and digits, one letter of a script that is written without spaces, or one sign.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0e7f"
_WORDS = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")


@dataclass(frozen=True)
class Vocabulary(TextInputs):
    """The known words, most frequent first after the two special ones; a word's number is its place."""

    words: tuple[str, ...]
    lowercase: bool
    max_length: int

    @classmethod
    def learn(cls, texts: Iterable[str], *, size: int, min_count: int, lowercase: bool, max_length: int) -> Vocabulary:
        """Know the `size` most frequent words that occur `min_count` times; words of equal count go by the alphabet."""
        counts = Counter(word for text in texts for word in _split(text, lowercase))
        known = sorted((word for word, count in counts.items() if count >= min_count), key=lambda w: (-counts[w], w))
        return cls((PAD, UNKNOWN, *known[: size - 2]), lowercase, max_length)

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the numbers of each text's words, at least one and at most `max_length`."""
        return [
            [self._numbers.get(word, 1) for word in _split(text, self.lowercase)[: self.max_length]] or [1]
            for text in texts
        ]

    def describe(self) -> dict[str, Any]:
        """Return the vocabulary as JSON can hold it."""
        return {"words": list(self.words), "lowercase": self.lowercase, "max_length": self.max_length}

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}


def _split(text: str, lowercase: bool) -> list[str]:
    return _WORDS.findall(text.lower() if lowercase else text)
