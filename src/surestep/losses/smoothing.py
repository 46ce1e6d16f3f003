"""Cross-entropy with label smoothing, as the trainer applies it to a model's logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelSmoother:
    """Mixes the target with the uniform distribution: `(1 - epsilon) * nll + epsilon * mean over classes`.

    Takes outputs of a model that was called without labels (a mapping with `logits`, or a tuple that begins with
    them) and labels whose `ignore_index` entries do not count. The sum is divided by `num_items_in_batch`, or by the
    number of labels that count. Source: Szegedy et al. 2016, with the original's arithmetic, but float64 stays so.
    """

    epsilon: float = 0.1
    ignore_index: int = -100

    def __call__(
        self, model_output: Any, labels: Tensor, shift_labels: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """Return the smoothed loss; `shift_labels` compares each position with the label of the next one."""
        logits: Tensor = model_output["logits"] if isinstance(model_output, Mapping) else model_output[0]
        if shift_labels:
            logits, labels = logits[..., :-1, :], labels[..., 1:]
        if labels.dim() < logits.dim():
            labels = labels.unsqueeze(-1)
        counts = labels != self.ignore_index
        surprise = -torch.nn.functional.log_softmax(logits, dim=-1)
        target = surprise.gather(-1, labels.clamp(min=0))
        exact = surprise.dtype if surprise.dtype == torch.float64 else torch.float32
        spread = surprise.sum(dim=-1, keepdim=True, dtype=exact)

        items = counts.sum() if num_items_in_batch is None else num_items_in_batch
        if isinstance(items, Tensor):
            items = items.to(logits.device)
        nll = torch.where(counts, target, 0.0).sum() / items
        uniform = torch.where(counts, spread, 0.0).sum() / (items * logits.shape[-1])
        return (1 - self.epsilon) * nll + self.epsilon * uniform
