"""Metrics of numbers and of probabilities: the mean squared error, and the perplexity."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from surestep.errors import DataError
from surestep.metrics.streaming import SummedMetric
from surestep.metrics.task import PredictionBatch


class MeanSquaredError(SummedMetric):
    """The mean squared difference, over samples and outputs."""

    higher_is_better: bool | None = False

    def terms(self, batch: PredictionBatch) -> Tensor:
        """Return squared errors and outputs of each sample."""
        if batch.task.kind != "regression":
            raise DataError(
                f"The metric 'mse' needs labels that are amounts, and the task is {batch.task.kind}. Give float "
                "labels, set config.problem_type='regression', or write metrics='accuracy'."
            )
        predictions, labels = batch.amounts
        squared = (predictions.double() - labels.double()).square()
        return torch.stack([squared.sum(1), torch.full_like(squared[:, 0], squared.shape[1])], dim=1)

    def figures(self, sums: Tensor) -> dict[str, Tensor]:
        """Return the mean."""
        return {"": sums[..., 0] / sums[..., 1]}


class Perplexity(SummedMetric):
    """The exponential of the mean negative log-likelihood of the labels that are not -100, over all positions."""

    higher_is_better: bool | None = False

    def terms(self, batch: PredictionBatch) -> Tensor:
        """Return the negative log-likelihood and the positions of each sample."""
        found = batch.classified
        if found.scores is None or found.scores.shape[1] == 1:
            raise DataError(
                "The metric 'perplexity' needs logits over the vocabulary, and the predictions are none. Return logits "
                "from preprocess_logits_for_metrics, and set predict_with_generate=False."
            )
        scores = found.scores if found.scores.dtype == torch.float64 else found.scores.float()
        lost = nn.functional.cross_entropy(scores, found.actual, reduction="none").double()
        both = torch.stack([torch.where(found.counted, lost, 0.0), found.counted.double()], dim=1)
        return both.new_zeros(batch.size, 2).index_add_(0, found.sample, both)

    def figures(self, sums: Tensor) -> dict[str, Tensor]:
        """Return the perplexity."""
        return {"": (sums[..., 0] / sums[..., 1]).exp()}
