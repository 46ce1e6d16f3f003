import copy

import pytest
import torch
from torch import nn

from surestep.optim.groups import default_groups
from surestep.optim.layerwise import LayerwiseOptimizer
from surestep.optim.lion import Lion
from surestep.optim.schedules import get_scheduler


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 2))


def steps(net, optimizer, schedule, count, start=0):
    for step in range(start, start + count):
        generator = torch.Generator().manual_seed(step)
        net(torch.randn(5, 4, generator=generator)).square().sum().backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def made(kind, net, groups):
    inner = {"inner": kind} if kind is not None else {}
    cls = LayerwiseOptimizer if inner else torch.optim.AdamW
    optimizer = cls(groups, lr=1e-2, **inner, **({} if kind is Lion else {"betas": (0.8, 0.9)}))
    return optimizer, get_scheduler("linear", optimizer, 2, 20)


def groups_of(net):
    decayed, plain = default_groups(net, 0.1)
    return [decayed, {**plain, "lr": 3e-3}]


def assert_equal(left, right):
    for one, other in zip(left.parameters(), right.parameters(), strict=True):
        assert torch.equal(one, other)


def test_it_trains_as_the_inner_optimizer_does():
    ours, theirs = model(), model()
    steps(ours, *made(torch.optim.AdamW, ours, groups_of(ours)), 8)
    plain = torch.optim.AdamW(groups_of(theirs), lr=1e-2, betas=(0.8, 0.9))
    steps(theirs, plain, get_scheduler("linear", plain, 2, 20), 8)
    assert_equal(ours, theirs)


def test_no_gradient_is_left_after_backward():
    net = model()
    made(torch.optim.AdamW, net, groups_of(net))
    net(torch.randn(5, 4)).sum().backward()
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("kind", [torch.optim.AdamW, Lion])
def test_it_resumes_bit_exactly(kind):
    whole = model()
    optimizer, schedule = made(kind, whole, groups_of(whole))
    steps(whole, optimizer, schedule, 3)
    saved = copy.deepcopy([part.state_dict() for part in (whole, optimizer, schedule)])
    steps(whole, optimizer, schedule, 3, start=3)
    resumed = model()
    optimizer, schedule = made(kind, resumed, groups_of(resumed))
    for part, state in zip((resumed, optimizer, schedule), saved, strict=True):
        part.load_state_dict(state)
    steps(resumed, optimizer, schedule, 3, start=3)
    assert_equal(whole, resumed)


def test_a_closure_does_the_update():
    parameter = nn.Parameter(torch.ones(2))
    optimizer = LayerwiseOptimizer([parameter], lr=0.1, inner=torch.optim.SGD)

    def closure():
        loss = parameter.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 2.0
    torch.testing.assert_close(parameter.detach(), torch.full((2,), 0.9))
