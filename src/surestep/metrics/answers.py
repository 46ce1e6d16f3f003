"""Exact match and F1 of answers to questions, as SQuAD measures them, as shares between 0 and 1."""

from __future__ import annotations

import re
import string
from collections import Counter

import torch
from torch import Tensor

from surestep.errors import DataError
from surestep.losses.shift import IGNORED
from surestep.metrics.streaming import SummedMetric
from surestep.metrics.task import PredictionBatch
from surestep.metrics.text import decoded, texts

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
# The longest answer, in tokens; the original's scripts look no further either.
_LONGEST = 30


class Squad(SummedMetric):
    """Exact match and F1 of answers: of generated text, or of spans that start and end logits point out.

    A span is the likeliest of at most 30 tokens, read from the batch's input tokens; one whose first token is the
    first of all (as labels say that there is no answer) is an empty text.
    """

    def terms(self, batch: PredictionBatch) -> Tensor:
        """Return exact match and F1 of each sample, and 1."""
        pointed = isinstance(batch.labels, tuple | list) and len(batch.labels) == 2
        said, wanted = _pointed_out(batch) if pointed else texts(batch)
        rows = [[*answer_scores(one, other), 1.0] for one, other in zip(said, wanted, strict=True)]
        return torch.tensor(rows, dtype=torch.float64)

    def figures(self, sums: Tensor) -> dict[str, Tensor]:
        """Return the means."""
        return {"_exact_match": sums[..., 0] / sums[..., 2], "_f1": sums[..., 1] / sums[..., 2]}


def answer_scores(said: str, wanted: str) -> tuple[float, float]:
    """Return exact match and F1 of an answer; articles, punctuation and case do not count."""
    one, other = _normal(said), _normal(wanted)
    if not one or not other:
        return float(one == other), float(one == other)
    common = (Counter(one) & Counter(other)).total()
    return float(one == other), 2 * common / (len(one) + len(other))


def _normal(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _pointed_out(batch: PredictionBatch) -> tuple[list[str], list[str]]:
    """Return the texts of the likeliest spans, and of the spans that the labels name."""
    tokens = (batch.inputs or {}).get(batch.reading.main_input)
    if not isinstance(tokens, Tensor) or not isinstance(batch.predictions, tuple | list):
        raise DataError(
            "The metric 'squad' on start and end labels needs start and end logits, and the tokens in the batch under "
            f"'{batch.reading.main_input}'. Let the model return both logits, or generate the answers."
        )
    start, end = batch.predictions[:2]
    pairs = start[:, :, None] + end[:, None, :]
    width = start.shape[1]
    allowed = torch.ones(width, width, dtype=torch.bool, device=start.device).triu().tril(_LONGEST - 1)
    best = pairs.masked_fill(~allowed, -torch.inf).flatten(1).argmax(1)
    tokens = tokens.to(start.device)
    predicted = _texts_of(batch, tokens, best // width, best % width)
    return predicted, _texts_of(batch, tokens, *batch.labels)


def _texts_of(batch: PredictionBatch, tokens: Tensor, start: Tensor, end: Tensor) -> list[str]:
    place = torch.arange(tokens.shape[1], device=tokens.device)
    inside = (place >= start[:, None]) & (place <= end[:, None]) & (start[:, None] > 0)
    return decoded(tokens.masked_fill(~inside, IGNORED), batch)
