"""Small models whose weights are stored."""

from __future__ import annotations

import torch
from torch import nn


class Tied(nn.Module):
    """Ties weights in three ways: the same parameter, a view of a buffer, halves of one memory."""

    def __init__(self, *, tied: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10)
        self.head.weight = self.embed.weight if tied else nn.Parameter(torch.zeros(10, 4))
        whole = torch.randn(6, 4)
        self.register_buffer("whole", whole)
        self.register_buffer("part", whole[2:4].t() if tied else torch.zeros(4, 2))
        self.register_buffer("scratch", torch.zeros(3), persistent=False)
        memory = torch.randn(8)
        self.left = nn.Parameter(memory[:4] if tied else torch.zeros(4))
        self.right = nn.Parameter(memory[4:] if tied else torch.zeros(4))


class Plain(nn.Module):
    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("count", torch.tensor(0))
        for parameter in self.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
        self.count.fill_(seed)
        self.to(dtype)


def same(left: nn.Module, right: nn.Module) -> None:
    first, second = left.state_dict(), right.state_dict()
    assert list(first) == list(second)
    for name, value in first.items():
        assert value.dtype == second[name].dtype
        assert torch.equal(value, second[name]), name
