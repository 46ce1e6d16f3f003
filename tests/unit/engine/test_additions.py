"""Compilation and embedding noise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from surestep.engine.additions import compile_model, noisy_embeddings
from surestep.errors import ArgumentError


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 6)

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens)


TOKENS = torch.randint(0, 10, (4, 5), generator=torch.Generator().manual_seed(0))


def test_the_noise_is_that_of_the_formula() -> None:
    model, alpha = Embedded(), 5.0
    plain = model(TOKENS).detach()
    with noisy_embeddings(model, alpha):
        torch.manual_seed(3)
        noisy = model(TOKENS).detach()
    # Jain et al. 2023: uniform in [-1, 1], scaled by alpha over the root of tokens times dimension.
    bound = alpha / math.sqrt(5 * 6)
    torch.manual_seed(3)
    expected = plain + torch.empty_like(plain).uniform_(-bound, bound)

    torch.testing.assert_close(noisy, expected, rtol=0, atol=1e-6)
    assert 0.9 * bound < (noisy - plain).abs().max() <= bound + 1e-6


def test_the_noise_is_bit_equal_to_the_originals() -> None:
    from transformers.integrations.neftune import neftune_post_forward_hook

    model = Embedded()
    with noisy_embeddings(model, 5.0):
        torch.manual_seed(3)
        ours = model(TOKENS)
    model.table.neftune_noise_alpha = 5.0
    model.table.register_forward_hook(neftune_post_forward_hook)
    torch.manual_seed(3)
    theirs = model(TOKENS)

    assert torch.equal(ours, theirs)


def test_evaluation_and_what_comes_after_are_without_noise() -> None:
    model = Embedded()
    plain = model(TOKENS)
    with noisy_embeddings(model, 5.0):
        model.eval()
        assert torch.equal(model(TOKENS), plain)
        model.train()
        assert not torch.equal(model(TOKENS), plain)

    assert torch.equal(model(TOKENS), plain)
    assert not model.table._forward_hooks


def test_the_noise_ends_with_an_error_too() -> None:
    model = Embedded()
    with pytest.raises(IndexError), noisy_embeddings(model, 5.0):
        model(torch.tensor([[99]]))

    assert not model.table._forward_hooks


def test_a_model_without_embeddings_is_told() -> None:
    message = r"neftune_noise_alpha is 5\.0, but Linear has no get_input_embeddings\. Define it"
    with pytest.raises(ArgumentError, match=message), noisy_embeddings(nn.Linear(1, 1), 5.0):
        pass


def test_a_compiled_model_computes_the_same() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    compiled, x = compile_model(model, backend="eager", mode=None), torch.ones(2, 3)

    assert torch.equal(compiled(x), model(x))
    assert compiled._orig_mod is model


@pytest.mark.parametrize(
    ("backend", "mode", "given"),
    [
        (None, None, {"backend": "inductor", "mode": None}),
        ("eager", None, {"backend": "eager", "mode": None}),
        ("inductor", "max-autotune", {"backend": "inductor", "mode": "max-autotune"}),
    ],
)
def test_backend_and_mode_reach_torch(monkeypatch: pytest.MonkeyPatch, backend: Any, mode: Any, given: Any) -> None:
    told: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda model, **options: told.append(options) or model)
    compile_model(nn.Linear(1, 1), backend=backend, mode=mode)

    assert told == [given]


def test_noise_is_switched_on_and_off_as_by_the_original() -> None:
    from transformers.integrations import neftune as theirs

    from surestep.engine import additions as ours

    drawn = []
    for room in (ours, theirs):
        model = Embedded()
        with torch.no_grad():
            model.table.weight.fill_(1.0)
        handle = room.activate_neftune(model, 5.0)
        torch.manual_seed(3)
        noisy = model(TOKENS)
        room.deactivate_neftune(model, handle)
        assert not hasattr(model.table, "neftune_noise_alpha")
        drawn.append((noisy, model(TOKENS)))

    assert torch.equal(drawn[0][0], drawn[1][0])
    assert torch.equal(drawn[0][1], drawn[1][1])
