"""Number formats around a model's forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from surestep.engine import precision as precision_module
from surestep.engine.precision import Autocast, Precision, ScaledAutocast, make_precision
from surestep.errors import ArgumentError

CPU = torch.device("cpu")


class Noting(nn.Module):
    """Notes in which number format its product is, and hands it out in several containers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.inner: list[torch.dtype] = []

    def forward(self, x: Tensor) -> Any:
        """Multiply."""
        product = self.layer(x)
        self.inner.append(product.dtype)
        return {"logits": product, "more": [(product,), torch.tensor(1), "text"]}


@pytest.mark.parametrize(("name", "kind"), [("no", Precision), ("bf16", Autocast), ("fp16", ScaledAutocast)])
def test_a_precision_by_name(name: str, kind: type[Precision]) -> None:
    made = make_precision(name, CPU)

    assert type(made) is kind
    assert made.name == name


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ArgumentError, match="mixed precision is 'fp4'; this machine serves no, bf16, fp16, fp8"):
        make_precision("fp4", CPU)


@pytest.mark.parametrize(
    ("name", "device", "message"),
    [
        ("bf16", "meta", r"bf16 is True, but meta does not compute in bfloat16\. Set fp16=True or neither"),
        ("fp16", "mps", r"fp16 is True, but mps has no loss scaling\. Set bf16=True or neither"),
    ],
)
def test_a_device_that_cannot_is_told(name: str, device: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make_precision(name, torch.device(device))


@pytest.mark.parametrize(("name", "dtype"), [("no", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_forward_computes_in_the_format_and_hands_out_float32(name: str, dtype: torch.dtype) -> None:
    model = Noting()
    with make_precision(name, CPU).applied(model):
        outputs = model(torch.ones(1, 3))
        # Only the forward is under autocast: a loss outside of it is in float32.
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32

    assert model.inner == [dtype]
    assert outputs["logits"].dtype == outputs["more"][0][0].dtype == torch.float32
    assert outputs["more"][1].dtype == torch.int64
    assert outputs["more"][2] == "text"


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_the_model_is_as_before_afterwards(name: str) -> None:
    model = Noting()
    with make_precision(name, CPU).applied(model):
        assert "forward" in vars(model)
        assert model.forward.__doc__ == "Multiply."
    assert "forward" not in vars(model)

    with pytest.raises(RuntimeError, match="shapes"), make_precision(name, CPU).applied(model):
        model(torch.ones(1, 9))
    assert "forward" not in vars(model)
    model(torch.ones(1, 3))
    assert model.inner[-1] == torch.float32


def test_a_forward_that_the_instance_had_is_put_back() -> None:
    model = Noting()
    own = lambda x: {"own": model.layer(x)}  # noqa: E731
    model.forward = own  # type: ignore[method-assign]
    with Autocast(CPU).applied(model):
        assert list(model(torch.ones(1, 3))) == ["own"]

    assert model.forward is own


def test_nested_blocks_add_nothing_and_the_outer_one_ends_it() -> None:
    model, precision = Noting(), Autocast(CPU)
    with precision.applied(model):
        outer = model.forward
        with precision.applied(model):
            assert model.forward is outer
        assert model.forward is outer
    assert "forward" not in vars(model)


def test_plain_precision_touches_nothing() -> None:
    model = Noting()
    with Precision().applied(model):
        assert "forward" not in vars(model)


def test_the_signature_of_forward_stays_readable() -> None:
    import inspect

    model = Noting()
    with Autocast(CPU).applied(model):
        assert list(inspect.signature(model.forward).parameters) == ["x"]


# The scaler


def step_of(scaled: ScaledAutocast, model: nn.Module, optimizer: Any, factor: float = 1.0) -> bool:
    optimizer.zero_grad()
    scaled.backward(factor * model(torch.ones(1, 3)).sum())
    scaled.unscale(optimizer)
    return scaled.step(optimizer)


def test_gradients_are_unscaled_once_a_step() -> None:
    model, scaled = nn.Linear(3, 1), ScaledAutocast(CPU)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaled.backward(model(torch.ones(1, 3)).sum())
    assert model.bias.grad.item() == 65536
    scaled.unscale(optimizer)
    scaled.unscale(optimizer)

    assert model.bias.grad.item() == 1


def test_whether_it_stepped_is_learnt_from_the_optimizer() -> None:
    model, scaled = nn.Linear(3, 1), ScaledAutocast(CPU)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    assert step_of(scaled, model, optimizer)
    assert not step_of(scaled, model, optimizer, factor=1e36)
    assert step_of(scaled, model, optimizer)


def test_a_second_optimizer_is_watched_as_well() -> None:
    model, scaled = nn.Linear(3, 1), ScaledAutocast(CPU)
    for optimizer in (torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.AdamW(model.parameters())):
        assert step_of(scaled, model, optimizer)
        assert not step_of(scaled, model, optimizer, factor=1e36)


def test_backward_takes_what_torch_takes() -> None:
    weight = torch.ones(1, requires_grad=True)
    for precision in (Precision(), ScaledAutocast(CPU)):
        loss = (weight * 2).sum()
        precision.backward(loss, retain_graph=True)
        precision.backward(loss)

    assert weight.grad.item() == 4 + 4 * 65536


def test_only_what_is_half_becomes_float32() -> None:
    convert = precision_module._to_float32

    assert convert(torch.ones(1, dtype=torch.float16)).dtype == torch.float32
    assert convert(torch.ones(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert convert(torch.ones(1, dtype=torch.float64)).dtype == torch.float64
    assert convert(3) == 3
