"""Precision, recall and F1 of labelled spans, such as names in a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from surestep.errors import ArgumentError, DataError
from surestep.metrics.bootstrap import Bootstrap
from surestep.metrics.streaming import SummedMetric
from surestep.metrics.task import PredictionBatch

Span = tuple[str, int, int]
# Transitions by scheme: the first letters of two tags in a row, and whether both must be of one type ("=" or "!"; "?"
# for either). Where a span starts, where it goes on, and where it has ended before the second tag.
_STRICT: dict[str, dict[str, frozenset[str]]] = {
    "IOB1": {
        "starts": frozenset({"OI?", "II!", "BI?", "IB=", "BB="}),
        "goes on": frozenset({"BI=", "II="}),
        "ends": frozenset({"II!", "IO?", "IB?", "BO?", "BI!", "BB="}),
    },
    "IOB2": {
        "starts": frozenset({"OB?", "IB?", "BB?"}),
        "goes on": frozenset({"BI=", "II="}),
        "ends": frozenset({"IO?", "IB?", "II!", "BO?", "BB?", "BI!"}),
    },
    "BIOES": {
        "starts": frozenset(f"{before}{tag}?" for before in "OBIES" for tag in "BS"),
        "goes on": frozenset({"BI=", "BE=", "II=", "IE="}),
        "ends": frozenset(f"{before}{tag}?" for before in "ES" for tag in "OBIES"),
    },
}
SCHEMES = ("lenient", *_STRICT)


class SpanF1(SummedMetric):
    """Precision, recall and F1 of whole spans, and the accuracy of tags; what the package seqeval calls overall.

    `scheme` is "lenient", which makes spans of any tags that begin with B, I, E, S or O as seqeval does by default, or
    "IOB1", "IOB2" or "BIOES", in which what the scheme does not allow is no span. `names` are the tags by number; by
    default those of the model's `config.id2label`.
    """

    def __init__(
        self, scheme: str = "lenient", *, names: Sequence[str] | None = None, bootstrap: Bootstrap | None = None
    ) -> None:
        super().__init__(bootstrap)
        if scheme not in SCHEMES:
            raise ArgumentError(f"SpanF1(scheme={scheme!r}): write one of {', '.join(SCHEMES)}.")
        self.scheme, self.names = scheme, names

    def terms(self, batch: PredictionBatch) -> Tensor:
        """Return right, predicted and actual spans, right and all tags, of each sample."""
        names = self._names(batch)
        found = batch.classified
        columns = torch.stack([found.sample, found.predicted, found.actual], dim=1)[found.counted].tolist()
        tags: list[tuple[list[str], list[str]]] = [([], []) for _ in range(batch.size)]
        for sample, predicted, actual in columns:
            tags[sample][0].append(names[predicted])
            tags[sample][1].append(names[actual])
        return torch.tensor([self._counts(*pair) for pair in tags], dtype=torch.float64)

    def _counts(self, predicted: list[str], actual: list[str]) -> list[int]:
        one, other = (set(spans(tags, self.scheme)) for tags in (predicted, actual))
        same = sum(tag == label for tag, label in zip(predicted, actual, strict=True))
        return [len(one & other), len(one), len(other), same, len(actual)]

    def _names(self, batch: PredictionBatch) -> Any:
        if self.names is not None:
            return self.names
        names = getattr(batch.reading.config, "id2label", None)
        tags = [str(name) for name in names.values()] if names else []
        if not tags or any(tag[:1] not in tuple("BIOESLU") or tag.startswith("LABEL_") for tag in tags):
            raise DataError(
                f"The metric 'seqeval' needs tags such as B-PER and O, and config.id2label has "
                f"{', '.join(tags[:3]) or 'none'}. Set id2label={{0: 'O', 1: 'B-PER', ...}} on the model's config, or "
                "write metrics={'seqeval': SpanF1(names=[...])}."
            )
        return names

    def figures(self, sums: Tensor) -> dict[str, Tensor]:
        """Return precision, recall, F1 and accuracy; 0 where there is nothing to divide by."""
        right, predicted, actual, same, tags = sums.unbind(-1)
        pairs = {
            "precision": (right, predicted),
            "recall": (right, actual),
            "f1": (2 * right, predicted + actual),
            "accuracy": (same, tags),
        }
        return {f"_{name}": torch.where(whole > 0, part / whole, 0.0) for name, (part, whole) in pairs.items()}


def spans(tags: Sequence[str], scheme: str = "lenient") -> list[Span]:
    """Return the spans of one sentence as (type, first, last), from tags such as B-PER."""
    pairs = [_split(tag) for tag in tags]
    return list(_lenient(pairs) if scheme == "lenient" else _strict(pairs, _STRICT[scheme]))


def _split(tag: str) -> tuple[str, str]:
    prefix, _, kind = tag.partition("-")
    return prefix[:1], kind or ("_" if prefix != "O" else "")


def _lenient(pairs: list[tuple[str, str]]) -> Iterator[Span]:
    """Yield what conlleval makes of tags: a span begins and ends wherever it can."""
    begin, before, kind_before = 0, "O", ""
    for place, (prefix, kind) in enumerate([*pairs, ("O", "")]):
        other = kind != kind_before
        if before != "O" and (before in "ES" or prefix in "BSO" or other):
            yield kind_before, begin, place - 1
        if prefix != "O" and (prefix in "BS" or before in "ESO" or other):
            begin = place
        before, kind_before = prefix, kind


def _strict(pairs: list[tuple[str, str]], scheme: dict[str, frozenset[str]]) -> Iterator[Span]:
    """Yield the spans that a scheme allows."""
    padded = [("O", ""), *pairs, ("O", "")]
    moves = [_moves(one, other) for one, other in pairwise(padded)]
    place = 0
    while place < len(pairs):
        if not moves[place] & scheme["starts"]:
            place += 1
            continue
        begin = place
        place += 1
        while moves[place] & scheme["goes on"]:
            place += 1
        if moves[place] & scheme["ends"]:
            yield pairs[begin][1], begin, place - 1


def _moves(one: tuple[str, str], other: tuple[str, str]) -> set[str]:
    letters = one[0] + other[0]
    return {letters + "?", letters + ("=" if one[1] == other[1] else "!")}
