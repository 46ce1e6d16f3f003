"""Metrics of text against a reference: ROUGE and BLEU. All are shares between 0 and 1, and nothing is downloaded."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from surestep.errors import DataError
from surestep.losses.shift import IGNORED
from surestep.metrics.bootstrap import Bootstrap
from surestep.metrics.streaming import SummedMetric
from surestep.metrics.task import PredictionBatch, first_tensor
from surestep.optional import require

_WORDS = re.compile(r"[a-z0-9]+")


def texts(batch: PredictionBatch) -> tuple[list[str], list[str]]:
    """Return predictions and labels as text, by the tokenizer; special tokens and -100 are left out.

    Of logits the likeliest token of each position is taken, where a label counts.
    """
    predictions, labels = first_tensor(batch.predictions), first_tensor(batch.labels)
    if predictions.dtype.is_floating_point:
        predictions, labels = batch.pair
        predictions = predictions.argmax(-1).masked_fill(labels == IGNORED, IGNORED)
    return decoded(predictions, batch), decoded(labels, batch)


def decoded(tokens: Tensor, batch: PredictionBatch) -> list[str]:
    """Return rows of tokens as text; numbers below 0 stand for nothing."""
    tokenizer = batch.reading.processing_class
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    if not callable(getattr(tokenizer, "batch_decode", None)):
        raise DataError(
            "Metrics of text need a tokenizer, and processing_class has no batch_decode. Write "
            "Trainer(..., processing_class=tokenizer)."
        )
    rows = [[token for token in row if token >= 0] for row in tokens.tolist()]
    return list(tokenizer.batch_decode(rows, skip_special_tokens=True))


class Rouge(SummedMetric):
    """The mean over samples of the F-measures of ROUGE-1, -2, -L and -Lsum.

    Words are runs of letters a to z and digits in lower case, without stemming, as in the package rouge-score. The
    sentences of -Lsum are lines.
    """

    def terms(self, batch: PredictionBatch) -> Tensor:
        """Return the four F-measures of each sample, and 1."""
        pairs = zip(*texts(batch), strict=True)
        return torch.tensor([[*rouge(one, other).values(), 1.0] for one, other in pairs], dtype=torch.float64)

    def figures(self, sums: Tensor) -> dict[str, Tensor]:
        """Return the means."""
        return {name: sums[..., place] / sums[..., 4] for place, name in enumerate(("1", "2", "L", "Lsum"))}


def rouge(prediction: str, reference: str) -> dict[str, float]:
    """Return the F-measures of one text, by "1", "2", "L" and "Lsum"."""
    said, wanted = _words(prediction), _words(reference)
    figures = {str(size): _of_runs(said, wanted, size) for size in (1, 2)}
    figures["L"] = _f_measure(len(_common(wanted, said)), len(said), len(wanted))
    lines = [[_words(line) for line in text.split("\n") if line] for text in (prediction, reference)]
    return figures | {"Lsum": _of_lines(*lines)}


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.lower())


def _runs(words: Sequence[str], size: int) -> Counter[Any]:
    return Counter(zip(*(words[start:] for start in range(size)), strict=False))


def _of_runs(said: list[str], wanted: list[str], size: int) -> float:
    one, other = _runs(said, size), _runs(wanted, size)
    return _f_measure((one & other).total(), one.total(), other.total())


def _of_lines(said: list[list[str]], wanted: list[list[str]]) -> float:
    """Return the F-measure of the words of each wanted line that some said line has in order, each word used once."""
    left = [Counter(word for line in lines for word in line) for lines in (said, wanted)]
    sizes = [counts.total() for counts in left]
    hits = 0
    for line in wanted:
        found = set[int]().union(*(_common(line, other) for other in said))
        for word in (line[place] for place in sorted(found)):
            if all(counts[word] > 0 for counts in left):
                hits += 1
                for counts in left:
                    counts[word] -= 1
    return _f_measure(hits, *sizes)


def _common(wanted: list[str], said: list[str]) -> list[int]:
    """Return the places in `wanted` of a longest common subsequence with `said`."""
    longest = [[0] * (len(said) + 1) for _ in range(len(wanted) + 1)]
    for row, word in enumerate(wanted, start=1):
        above, here = longest[row - 1], longest[row]
        for column, other in enumerate(said, start=1):
            here[column] = above[column - 1] + 1 if word == other else max(above[column], here[column - 1])
    places = []
    row, column = len(wanted), len(said)
    while row and column:
        if wanted[row - 1] == said[column - 1]:
            places.append(row - 1)
            row, column = row - 1, column - 1
        elif longest[row][column - 1] > longest[row - 1][column]:
            column -= 1
        else:
            row -= 1
    return places


def _f_measure(hits: int, said: int, wanted: int) -> float:
    return 2 * hits / (said + wanted) if hits else 0.0


class Bleu(SummedMetric):
    """Corpus BLEU of up to four words in a row with one reference, by the words of sacreBLEU ("13a"), not smoothed."""

    def __init__(self, bootstrap: Bootstrap | None = None) -> None:
        super().__init__(bootstrap)
        self._one = require("torchmetrics.text", "metrics='bleu'").SacreBLEUScore(tokenize="13a")

    def terms(self, batch: PredictionBatch) -> Tensor:
        """Return matches and runs of 1 to 4 words, and both lengths, of each sample."""
        return torch.stack([self._counts(*pair) for pair in zip(*texts(batch), strict=True)])

    def _counts(self, prediction: str, reference: str) -> Tensor:
        one = self._one
        one.reset()
        one.update([prediction], [[reference]])
        return torch.cat([one.numerator, one.denominator, one.preds_len[None], one.target_len[None]]).double()

    def figures(self, sums: Tensor) -> dict[str, Tensor]:
        """Return the score; 0 where no run of four words is met."""
        matches, runs, said, wanted = sums[..., :4], sums[..., 4:8], sums[..., 8], sums[..., 9]
        shares = (matches / runs.clamp(min=1)).log().mean(-1).exp()
        brevity = torch.exp((1 - wanted / said.clamp(min=math.ulp(1.0))).clamp(max=0.0))
        return {"": shares * brevity}
