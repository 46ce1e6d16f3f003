"""How large a checkpoint will be, compared with how large it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small import Points, quick
from torch import nn
from torch.optim import Optimizer

from surestep.checkpoint.estimate import checkpoint_size, optimizer_size
from surestep.checkpoint.names import parameter_names
from surestep.checkpoint.space import Size

WITHIN = 0.03


class Wide(nn.Module):
    """A model whose weights outweigh what else is in a checkpoint: 400,000 numbers, some tied, some frozen."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 600), nn.Linear(600, 600)
        self.tied = nn.Linear(600, 600)
        self.tied.weight = self.second.weight
        self.frozen = nn.Linear(600, 60).requires_grad_(False)
        self.last = nn.Linear(600, 1)
        self.register_buffer("mean", torch.zeros(600))

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.tied(self.second(self.first(x).tanh()).tanh())
        return {"loss": nn.functional.mse_loss(self.last(hidden), labels) + 0 * self.frozen(hidden).sum()}


def written(folder: Path, **settings: Any) -> tuple[Size | None, Size]:
    """Return what was expected before the first step, and the size of what was written after some."""
    expected: list[Size | None] = []

    trainer = quick(folder, save_strategy="steps", save_steps=3, max_steps=3, **settings)
    made = trainer.check_saveable

    def look() -> None:
        made()
        optimizer = None if trainer.args.save_only_model else trainer.optimizer
        model = trainer.engine.unwrap(trainer.model)
        expected.append(checkpoint_size(model, optimizer, trainer._names_by_parameter()))

    trainer.check_saveable = look  # type: ignore[method-assign]
    trainer.train()
    files = [path for path in (folder / "checkpoint-3").rglob("*") if path.is_file()]
    sizes = [path.stat().st_size for path in files]
    return expected[0], Size(sum(sizes), max(sizes))


def assert_near(expected: Size | None, real: Size) -> None:
    assert expected is not None
    assert expected.total == pytest.approx(real.total, rel=WITHIN)
    assert expected.largest == pytest.approx(real.largest, rel=WITHIN)


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optim": "sgd"},
    "sgd with momentum": {"optim": "sgd", "optim_args": "momentum=0.9"},
    "adamw": {"optim": "adamw_torch"},
    "adamw fused": {"optim": "adamw_torch_fused"},
    "adamw amsgrad": {"optim": "adamw_torch", "optim_args": "amsgrad=True"},
    "adagrad": {"optim": "adagrad"},
    "rmsprop": {"optim": "rmsprop"},
    "lion": {"optim": "lion"},
    "model alone": {"save_only_model": True},
}


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_a_checkpoint_is_as_large_as_was_told_before_the_first_step(tmp_path: Path, case: str) -> None:
    expected, real = written(tmp_path, model=Wide(), **OPTIMIZERS[case])
    assert_near(expected, real)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_adapters_alone_are_counted(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import GPT2Config, GPT2LMHeadModel

    class Tokens(Points):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            return {"input_ids": torch.arange(5), "labels": torch.arange(5)}

    config = GPT2Config(vocab_size=50, n_positions=8, n_embd=256, n_layer=4, n_head=2)
    adapted = peft.get_peft_model(
        GPT2LMHeadModel(config), peft.LoraConfig(r=64, target_modules=["c_attn"], fan_in_fan_out=True)
    )
    expected, real = written(tmp_path, model=adapted, train_dataset=Tokens(12))
    assert real.total < 8 * 2**20
    assert_near(expected, real)


def test_tied_weights_of_transformers_are_counted_once(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    class Tokens(Points):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            return {"input_ids": torch.arange(5), "labels": torch.arange(5)}

    model = GPT2LMHeadModel(GPT2Config(vocab_size=4000, n_positions=8, n_embd=64, n_layer=1, n_head=2))
    expected, real = written(tmp_path, model=model, train_dataset=Tokens(12))
    assert_near(expected, real)


class Curious(torch.optim.SGD):
    """Reads a value in its step, which a parameter without memory does not have."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["largest"] = parameter.abs().max().item()
                self.state[parameter]["copy"] = parameter.detach().clone()
        super().step()


def test_what_shows_in_the_first_step_only_is_known_after_it() -> None:
    model = nn.Linear(100, 100)
    optimizer = Curious(model.parameters(), lr=0.1)
    names = parameter_names(model)
    assert optimizer_size(optimizer, names) is None
    model(torch.ones(1, 100)).sum().backward()
    optimizer.step()
    assert optimizer_size(optimizer, names) == pytest.approx(4 * 10_100, rel=0.1)


@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.Adagrad])
def test_looking_changes_nothing(make: Callable[..., Optimizer]) -> None:
    model = nn.Linear(3, 3)
    optimizer = make(model.parameters(), lr=0.1)
    state, random = len(optimizer.state), torch.get_rng_state()
    weights = model.weight.detach().clone()
    assert optimizer_size(optimizer, parameter_names(model)) is not None
    assert len(optimizer.state) == state
    assert torch.equal(model.weight, weights)
    assert model.weight.grad is None
    assert torch.equal(random, torch.get_rng_state())
