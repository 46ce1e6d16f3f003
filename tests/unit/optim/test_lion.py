import torch
from torch import nn

from surestep.optim.build import optimizer_class_and_kwargs
from surestep.optim.lion import Lion


def test_lion_is_the_papers():
    torch.manual_seed(0)
    start = torch.randn(3, 4)
    parameter = nn.Parameter(start.clone())
    optimizer = Lion([parameter, nn.Parameter(torch.ones(1))], lr=1e-2, betas=(0.8, 0.95), weight_decay=0.1)
    weight, momentum = start.double(), torch.zeros(3, 4, dtype=torch.float64)
    for _ in range(20):
        parameter.grad = torch.randn(3, 4)
        gradient = parameter.grad.double()
        optimizer.step()
        update = (0.8 * momentum + 0.2 * gradient).sign()
        weight = weight - 1e-2 * (update + 0.1 * weight)
        momentum = 0.95 * momentum + 0.05 * gradient
    torch.testing.assert_close(parameter.detach().double(), weight, rtol=1e-5, atol=1e-6)
    assert optimizer.param_groups[0]["params"][1] == 1.0


def test_a_closure_is_called():
    parameter = nn.Parameter(torch.ones(2))

    def closure():
        loss = parameter.sum()
        loss.backward()
        return loss

    assert Lion([parameter], lr=0.1).step(closure) == 2.0
    torch.testing.assert_close(parameter.detach(), torch.full((2,), 0.9))


def test_its_betas_are_its_own():
    cls, kwargs = optimizer_class_and_kwargs("lion", learning_rate=0.1, adam_beta1=0.5, optim_args="beta2=0.95")
    assert (cls, kwargs) == (Lion, {"lr": 0.1, "betas": (0.9, 0.95)})
