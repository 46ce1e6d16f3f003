"""A small residual network (He et al. 2016), with group instead of batch normalisation.

Group normalisation has no running statistics: accumulation, small last batches and resuming change nothing.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 (the name that PyTorch's own documentation gives it)
from torch import Tensor, nn

from surestep.errors import ModelError
from surestep.tasks.outputs import Output, classified
from surestep.tasks.settings import ResidualNetwork

_GROUPS = 8


class ResidualNetworkModel(nn.Module):
    """Classify pictures; every stage after the first halves the sides and doubles the channels."""

    accepts_loss_kwargs = True

    def __init__(self, settings: ResidualNetwork, shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        most = min(height, width).bit_length()
        if settings.num_stages > most:
            raise ModelError(
                f"model.num_stages={settings.num_stages} halves pictures of {height} x {width} to nothing: "
                f"write at most {most}."
            )
        stages: list[nn.Module] = [nn.Conv2d(channels, settings.width, 3, padding=1, bias=False)]
        current = settings.width
        for stage in range(settings.num_stages):
            if stage:
                stages.append(nn.Conv2d(current, 2 * current, kernel_size=2, stride=2))
                current *= 2
            stages += [_ResidualBlock(current) for _ in range(settings.blocks_per_stage)]
        self.stages = nn.Sequential(*stages)
        self.norm = nn.GroupNorm(_GROUPS, current)
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(current, num_classes)

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, num_items_in_batch: Tensor | int | None = None
    ) -> Output:
        """Score pictures of shape (batch, channels, height, width)."""
        features = F.relu(self.norm(self.stages(pixel_values))).mean(dim=(2, 3))
        return classified(self.head(self.dropout(features)), labels, num_items_in_batch)


class _ResidualBlock(nn.Module):
    """Two convolutions on normalised input, added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(_GROUPS, channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(_GROUPS, channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = features + self.layers(features)
        return output
