"""The parts that look at a step: what is put back, what a loss tells, what an optimizer leaves out."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from surestep.engine.engine import Verdict, telling
from surestep.engine.nonfinite import Before, Buffers, EveryStep, Failure, OneStepLate

CPU = torch.device("cpu")


class Moving(nn.Module):
    """One buffer of each kind: statistics, a count, one that moves late, one that never moves and a large one."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("late", torch.zeros(2))
        self.register_buffer("mask", torch.ones(4, dtype=torch.bool))
        self.register_buffer("queue", torch.zeros(2**18 + 1))

    def step(self, place: int) -> None:
        self.norm(torch.randn(4, 3) + place)
        self.queue[place] = place
        if place >= 3:
            self.late.add_(1)


def state(model: nn.Module) -> list[Tensor]:
    return [buffer.clone() for buffer in model.buffers()]


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_buffers_are_those_from_before_the_group(step: int) -> None:
    model = Moving()
    buffers = Buffers(model)
    for place in range(step):
        buffers.keep()
        model.step(place)
    buffers.keep()
    before = state(model)
    for _ in range(2):
        model.step(step)
        assert not torch.equal(model.norm.running_mean, before[0])
        buffers.put_back()
        assert all(torch.equal(one, other) for one, other in zip(model.buffers(), before, strict=True))
    model.step(step)
    buffers.put_back_where(torch.tensor(False))
    assert not torch.equal(model.norm.running_mean, before[0])
    buffers.put_back_where(torch.tensor(True))
    assert all(torch.equal(one, other) for one, other in zip(model.buffers(), before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_tells_has_the_same_gradient_where_it_is_finite(dtype: torch.dtype, bad: float) -> None:
    weight = torch.randn(50, dtype=dtype, requires_grad=True)
    loss = (weight.exp() / 3).sum()
    (plain,) = torch.autograd.grad(loss, weight, retain_graph=True)
    (told,) = torch.autograd.grad(telling(loss), weight, retain_graph=True)
    (spoiled,) = torch.autograd.grad(telling(loss + bad), weight)

    assert torch.equal(plain, told)
    assert spoiled.isnan().all()


class Noting:
    def __init__(self, verdict: Verdict = Verdict.LEFT_OUT) -> None:
        self.verdict, self.failures, self.undone = verdict, [], []

    def __call__(self, failure: Failure) -> Verdict:
        self.failures.append(failure)
        return self.verdict

    def moment(self) -> int:
        return len(self.undone)

    def undo_where(self, bad: Tensor) -> None:
        self.undone.append(bool(bad))


STEPS = [([1.0], 1.0), ([1.0, math.nan], 1.0), ([1.0], math.inf), ([2.0], None), ([math.inf, -math.inf], None)]


def walk(watch: Any, tells: bool) -> list[Verdict]:
    verdicts = []
    for losses, norm in STEPS:
        watch.begin((losses, norm)).extend(map(torch.tensor, losses))
        now = watch.look(None if norm is None else torch.tensor(norm))
        verdicts.append(watch.settle() if watch.late else now)
    return verdicts


@pytest.mark.parametrize(("tells", "bad"), [(False, [1, 2, 4]), (True, [2])])
@pytest.mark.parametrize("late", [False, True])
def test_norm_and_losses_are_looked_at(late: bool, tells: bool, bad: list[int]) -> None:
    answer, before = Noting(), Before(nn.Module(), CPU)
    optimizer = SimpleNamespace()
    watch: Any = EveryStep(before, answer, tells=tells)
    if late:
        watch = OneStepLate(before, answer, optimizer, CPU, tells=tells)
    verdicts = walk(watch, tells)

    assert [place for place, one in enumerate(verdicts) if one is Verdict.LEFT_OUT] == bad
    assert [STEPS.index(failure.group) for failure in answer.failures] == bad
    assert [failure.in_a_row for failure in answer.failures] == ([1] if tells else [1, 2, 1])
    assert answer.undone == ([place in bad for place in range(5)] if late else [])
    assert not hasattr(optimizer, "found_inf")


@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD, torch.optim.Adagrad])
def test_fused_optimizers_leave_a_step_out_by_themselves(make: Any) -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = make([weight], lr=0.1, fused=True)
    watch = OneStepLate(Before(nn.Module(), CPU), Noting(), optimizer, CPU)
    kept: list[Any] = []
    for size in (1.0, math.nan, 1.0):
        watch.begin(None).append(torch.tensor(size))
        weight.grad = torch.full((3,), size)
        watch.look(weight.grad.norm())
        optimizer.step()
        kept.append((weight.detach().clone(), {name: value.clone() for name, value in optimizer.state[weight].items()}))
        watch.settle()

    assert torch.equal(kept[0][0], kept[1][0])
    assert all(torch.equal(kept[0][1][name], kept[1][1][name]) for name in kept[0][1])
    assert not torch.equal(kept[1][0], kept[2][0])
    assert kept[2][0].isfinite().all()


def test_the_generators_draw_again_what_they_drew() -> None:
    before = Before(nn.Module(), CPU)
    torch.manual_seed(3)
    before.keep()
    drawn = torch.rand(3)
    before.put_generators_back()

    assert torch.equal(torch.rand(3), drawn)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_leaves_a_step_out_and_says_so_a_step_later() -> None:
    card = torch.device("cuda")
    weight = nn.Parameter(torch.ones(3, device=card))
    optimizer = torch.optim.AdamW([weight], fused=True)
    answer = Noting()
    watch = OneStepLate(Before(nn.Module(), card), answer, optimizer, card)
    for size in (1.0, math.nan, 1.0):
        watch.settle()
        watch.begin(size).append(torch.tensor(size, device=card))
        weight.grad = torch.full((3,), size, device=card)
        watch.look(weight.grad.norm())
        optimizer.step()
    watch.settle()

    assert [failure.group for failure in answer.failures] == [math.nan]
    assert optimizer.state[weight]["step"] == 2
    assert weight.isfinite().all()
