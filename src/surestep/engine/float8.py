"""Linear layers in float8, the rest in bfloat16: by torchao, on hardware that multiplies float8."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from surestep.engine.precision import Autocast
from surestep.errors import ArgumentError
from surestep.logs import get_logger
from surestep.optional import require
from surestep.runtime.device import supports_float8

logger = get_logger(__name__)

# The products of float8 take matrices whose sides are multiples of this.
_SIDE = 16


class Float8(Autocast):
    """Bfloat16 under autocast, with the products of linear layers in float8 (dynamic scaling by tensor).

    The first and the last linear layer stay in bfloat16, as they do under the original's launcher, and so does a layer
    whose sides are no multiples of 16. Weights stay what they are: the same parameters under the same names, in
    checkpoints too. The layers are exchanged for the length of a run and put back after it.

    `emulate` computes in the device's own format what float8 would give: slow, for looking at the numbers.
    """

    name = "fp8"

    def __init__(self, device: torch.device, *, emulate: bool = False) -> None:
        self._emulate = emulate
        super().__init__(device)

    def _check(self, device: torch.device) -> None:
        if not self._emulate and not supports_float8(device):
            raise ArgumentError(
                f"fp8 is True, but {_called(device)} does not multiply in float8: it takes an NVIDIA GPU of compute "
                "capability 8.9 or newer (Ada, Hopper, Blackwell). Set bf16=True."
            )
        require("torchao", "fp8=True")

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Exchange the linear layers and put autocast around forward, for the length of the block."""
        places = _places(model)
        try:
            self._exchange(model, places)
            with super().applied(model):
                yield
        finally:
            for name, layer in places.items():
                model.set_submodule(name, layer)

    def _exchange(self, model: nn.Module, places: dict[str, nn.Linear]) -> None:
        from torchao.float8 import Float8LinearConfig
        from torchao.float8.float8_linear import Float8Linear

        # A ragged batch has any number of rows; padding inside the product makes it fit.
        config = Float8LinearConfig(pad_inner_dim=True, emulate=self._emulate)
        for name, layer in places.items():
            model.set_submodule(name, Float8Linear.from_float(layer, config=config))
        if places:
            logger.info("fp8: the products of %d linear layers run in float8.", len(places))


def _places(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers to exchange; none where they were exchanged already (a block inside a block)."""
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if any(type(module).__name__ == "Float8Linear" for module in linear.values()):
        return {}
    inner = list(linear.items())[1:-1]
    chosen = {name: module for name, module in inner if type(module) is nn.Linear and _fits(module)}
    if not chosen:
        raise ArgumentError(
            f"fp8 is True, but {type(model).__name__} has no linear layer for it: it takes plain nn.Linear layers "
            f"between the first and the last, whose sides are multiples of {_SIDE}. Set bf16=True."
        )
    return chosen


def _fits(layer: nn.Linear) -> bool:
    return layer.in_features % _SIDE == 0 and layer.out_features % _SIDE == 0


def _called(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
