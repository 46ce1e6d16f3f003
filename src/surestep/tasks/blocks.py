"""The transformer block that the small models of the tasks are made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (the name that PyTorch's own documentation gives it)
from torch import Tensor, nn


class TransformerBlock(nn.Module):
    """Self-attention, then a two-layer network, each on normalised input and added to what came in.

    Hidden states have the shape (batch, positions, dim). A mask of shape (batch, 1, 1, positions) is True where a
    position may be attended to.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(dim)
        self.queries_keys_values = nn.Linear(dim, 3 * dim)
        self.attention_output = nn.Linear(dim, dim)
        self.network_norm = nn.LayerNorm(dim)
        self.network = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return new hidden states of the same shape."""
        hidden = hidden + self.dropout(self._attend(self.attention_norm(hidden), mask))
        output: Tensor = hidden + self.dropout(self.network(self.network_norm(hidden)))
        return output

    def _attend(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        batch, positions, dim = hidden.shape
        heads = self.queries_keys_values(hidden).view(batch, positions, 3, self.num_heads, dim // self.num_heads)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        output: Tensor = self.attention_output(mixed.transpose(1, 2).reshape(batch, positions, dim))
        return output


def small_normal(*shape: int) -> nn.Parameter:
    """Return a learnt table that starts near zero."""
    return nn.Parameter(torch.randn(shape) * 0.02)
