"""A vision transformer small enough for small pictures (Dosovitskiy et al. 2021, with mean pooling)."""

from __future__ import annotations

from torch import Tensor, nn

from surestep.errors import ModelError
from surestep.tasks.blocks import TransformerBlock, small_normal
from surestep.tasks.outputs import Output, classified
from surestep.tasks.settings import VisionTransformer


class VisionTransformerModel(nn.Module):
    """Classify pictures of one size; each square patch is a position of the transformer."""

    accepts_loss_kwargs = True

    def __init__(self, settings: VisionTransformer, shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        side = settings.patch_size
        if height % side or width % side:
            raise ModelError(
                f"model.patch_size={side} does not divide pictures of {height} x {width}: write a divisor."
            )
        self.patches = nn.Conv2d(channels, settings.dim, kernel_size=side, stride=side)
        self.positions = small_normal(1, (height // side) * (width // side), settings.dim)
        self.blocks = nn.ModuleList(
            TransformerBlock(settings.dim, settings.num_heads, settings.dropout) for _ in range(settings.num_layers)
        )
        self.norm = nn.LayerNorm(settings.dim)
        self.head = nn.Linear(settings.dim, num_classes)

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, num_items_in_batch: Tensor | int | None = None
    ) -> Output:
        """Score pictures of shape (batch, channels, height, width)."""
        hidden = self.patches(pixel_values).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            hidden = block(hidden)
        return classified(self.head(self.norm(hidden).mean(dim=1)), labels, num_items_in_batch)
