"""Activation checkpointing: the same gradients with fewer kept activations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from surestep.engine.recompute import Recompute, repeated_layers
from surestep.errors import ArgumentError, ModelError


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.drop, self.calls = nn.Linear(4, 4), nn.Dropout(0.5), 0

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        self.calls += 1
        return torch.tanh(self.drop(self.linear(x)) * scale)


class Stack(nn.Module):
    """Layers without a switch of their own."""

    def __init__(self, keywords: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Sequential(nn.Linear(4, 1))
        self.layers = nn.ModuleList(Layer() for _ in range(4))
        self.keywords = {"scale": 2.0} if keywords else {}

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, **self.keywords)
        return self.head(x)


def gradients(model: nn.Module) -> list[Tensor]:
    model.zero_grad()
    torch.manual_seed(1)
    model(torch.ones(3, 4, requires_grad=True)).sum().backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def calls(model: Stack) -> list[int]:
    counted = [layer.calls for layer in model.layers]
    for layer in model.layers:
        layer.calls = 0
    return counted


@pytest.mark.parametrize("keywords", [False, True])
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (None, [2, 2, 2, 2]),
        ({"use_reentrant": True}, [2, 2, 2, 2]),
        ({"every_n_layers": 2}, [2, 1, 2, 1]),
        ({"every_n_layers": 3, "offload": True}, [2, 1, 1, 2]),
        ({"offload": True, "use_reentrant": False}, [2, 2, 2, 2]),
    ],
    ids=str,
)
def test_layers_are_computed_again_and_gradients_stay_the_same(
    settings: Any, expected: list[int], keywords: bool
) -> None:
    model = Stack(keywords)
    plain = gradients(model)
    assert calls(model) == [1, 1, 1, 1]
    with Recompute.of(settings).applied(model):
        recomputed = gradients(model)

    # With dropout: the random state of forward is the one of the recomputation.
    assert calls(model) == expected
    assert all(torch.equal(one, other) for one, other in zip(plain, recomputed, strict=True))
    gradients(model)
    assert calls(model) == [1, 1, 1, 1]


def test_without_gradients_nothing_is_recomputed() -> None:
    model = Stack()
    with Recompute().applied(model), torch.no_grad():
        model(torch.ones(1, 4))

    assert calls(model) == [1, 1, 1, 1]


class Switch(Stack):
    """Has today's switch, with the options of its own kind."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, Any] | None = None

    def activation_checkpointing_enable(self, activation_checkpointing_kwargs: Any = None) -> None:
        self.told = {"kwargs": activation_checkpointing_kwargs}


class FullSwitch(Switch):
    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: Any = None, every_n_layers: int = 1, offload: bool = False
    ) -> None:
        self.told = {"kwargs": activation_checkpointing_kwargs, "every": every_n_layers, "offload": offload}


class OldSwitch(Stack):
    told: Any = None

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Any = None) -> None:
        self.told = {"kwargs": gradient_checkpointing_kwargs}


@pytest.mark.parametrize(
    ("kind", "settings", "told"),
    [
        (Switch, None, {"kwargs": None}),
        (Switch, {"use_reentrant": True}, {"kwargs": {"use_reentrant": True}}),
        (OldSwitch, {"use_reentrant": False}, {"kwargs": {"use_reentrant": False}}),
        (FullSwitch, {"every_n_layers": 2}, {"kwargs": None, "every": 2, "offload": False}),
    ],
)
def test_a_model_with_a_switch_is_asked(kind: Any, settings: Any, told: Any) -> None:
    model = kind()
    with Recompute.of(settings).applied(model):
        gradients(model)

    assert model.told == told
    assert calls(model) == [1, 1, 1, 1]


@pytest.mark.parametrize("kind", [Switch, OldSwitch])
def test_a_switch_that_cannot_what_is_asked_is_left_alone(kind: Any) -> None:
    model = kind()
    with Recompute.of({"every_n_layers": 2}).applied(model):
        gradients(model)

    assert model.told is None
    assert calls(model) == [2, 1, 2, 1]


@pytest.mark.parametrize("every", [0, -1, 1.5, "2"])
def test_an_interval_that_is_no_count_is_refused(every: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"every_n_layers={every!r}; write a whole number of 1 or more"):
        Recompute.of({"every_n_layers": every})


def test_settings_are_not_changed() -> None:
    settings = {"every_n_layers": 2, "use_reentrant": True}
    Recompute.of(settings)

    assert settings == {"every_n_layers": 2, "use_reentrant": True}


def test_the_longest_list_of_equal_layers_is_taken() -> None:
    model = nn.ModuleDict(
        {
            "mixed": nn.Sequential(*[nn.Linear(1, 1), nn.ReLU()] * 4),
            "short": nn.ModuleList([nn.Linear(1, 1) for _ in range(2)]),
            "long": nn.Sequential(*[nn.Linear(1, 1) for _ in range(3)]),
        }
    )

    assert repeated_layers(model) == list(model["long"])


def test_a_model_without_layers_is_told() -> None:
    with pytest.raises(ModelError, match=r"Linear has no list of equal layers.*Define that method"):
        repeated_layers(nn.Linear(1, 1))
