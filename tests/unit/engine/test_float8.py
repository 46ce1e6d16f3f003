"""Linear layers in float8: which, for how long, and with what numbers (emulated: no device here multiplies float8)."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from surestep.engine.float8 import Float8
from surestep.errors import ArgumentError, MissingPackageError

CPU = torch.device("cpu")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(8, 32), nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 20), nn.Linear(20, 32), nn.Linear(32, 2)]
    return nn.Sequential(*layers)


def test_hardware_without_float8_is_refused_before_the_package_is_missed() -> None:
    with pytest.raises(ArgumentError, match=r"fp8 is True, but cpu does not multiply in float8"):
        Float8(CPU)


def test_the_package_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surestep.engine.float8.supports_float8", lambda device: True)
    monkeypatch.setattr("surestep.optional.installed", lambda module: False)
    with pytest.raises(MissingPackageError, match=r"fp8=True needs the package 'torchao'.*pip install torchao"):
        Float8(CPU)


class TestWithTorchao:
    @pytest.fixture(autouse=True)
    def _package(self) -> None:
        pytest.importorskip("torchao", reason="torchao is not installed")

    def test_layers_are_exchanged_for_the_length_of_the_block(self, caplog: pytest.LogCaptureFixture) -> None:
        model = network()
        before, names = list(model), list(model.state_dict())
        parameters = [id(parameter) for parameter in model.parameters()]
        precision = Float8(CPU, emulate=True)
        with caplog.at_level(logging.INFO, "surestep"), precision.applied(model), precision.applied(model):
            kinds = [type(layer).__name__ for layer in model]
            assert kinds == ["Linear", "Float8Linear", "ReLU", "Linear", "Linear", "Linear"]
            assert [id(parameter) for parameter in model.parameters()] == parameters
            assert list(model.state_dict()) == names
        assert all(one is other for one, other in zip(model, before, strict=True))
        assert caplog.text.count("1 linear layers run in float8") == 1

    def test_gradients_are_those_of_float32_but_for_rounding(self) -> None:
        model, inputs = network(), torch.randn(37, 8, generator=torch.Generator().manual_seed(1))
        model(inputs).square().mean().backward()
        exact = [parameter.grad.clone() for parameter in model.parameters()]
        model.zero_grad()
        with Float8(CPU, emulate=True).applied(model):
            outputs = model(inputs)
            outputs.square().mean().backward()
        rounded = [parameter.grad for parameter in model.parameters()]

        assert outputs.dtype == torch.float32
        for one, other in zip(exact, rounded, strict=True):
            error = (one - other).norm() / one.norm()
            assert 0 < error < 0.2

    def test_a_model_with_no_layer_for_it_is_refused(self) -> None:
        model = nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 20), nn.Linear(20, 2))
        with pytest.raises(ArgumentError, match=r"Sequential has no linear layer for it.*multiples of 16"):
            Float8(CPU, emulate=True).applied(model).__enter__()
