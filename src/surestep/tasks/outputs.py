"""What the task models return: scores, and the loss where labels are given."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 (the name that PyTorch's own documentation gives it)
from torch import Tensor

Output = dict[str, Tensor]


def classified(logits: Tensor, labels: Tensor | None, num_items_in_batch: Tensor | int | None = None) -> Output:
    """Return `logits` of shape (batch, classes), with the cross-entropy loss where `labels`, shape (batch,), are given.

    With `num_items_in_batch`, the samples of the whole optimizer step, the loss is the sum over this batch divided by
    it: the losses of the micro-batches then add up to that of one large batch.
    """
    if labels is None:
        return {"logits": logits}
    if num_items_in_batch is None:
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}
    return {"loss": F.cross_entropy(logits, labels, reduction="sum") / num_items_in_batch, "logits": logits}
