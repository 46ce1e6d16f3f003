"""A small transformer encoder that classifies texts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from surestep.tasks.blocks import TransformerBlock, small_normal
from surestep.tasks.outputs import Output, classified
from surestep.tasks.settings import TextEncoder


class TextEncoderModel(nn.Module):
    """Classify texts of up to `max_length` positions by the mean of their last hidden states."""

    accepts_loss_kwargs = True

    def __init__(
        self, settings: TextEncoder, vocabulary_size: int, max_length: int, num_classes: int, pad_id: int = 0
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, settings.dim, padding_idx=pad_id)
        self.positions = small_normal(max_length, settings.dim)
        self.dropout = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(settings.dim, settings.num_heads, settings.dropout) for _ in range(settings.num_layers)
        )
        self.norm = nn.LayerNorm(settings.dim)
        self.head = nn.Linear(settings.dim, num_classes)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Output:
        """Score texts; `input_ids` and `attention_mask` have the shape (batch, positions)."""
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = self.dropout(self.words(input_ids) + self.positions[: input_ids.shape[1]])
        for block in self.blocks:
            hidden = block(hidden, real[:, None, None, :].bool())
        weights = real.unsqueeze(-1).to(hidden.dtype)
        pooled = (self.norm(hidden) * weights).sum(dim=1) / weights.sum(dim=1)
        return classified(self.head(pooled), labels, num_items_in_batch)
