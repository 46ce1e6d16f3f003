import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor

from surestep.optim.clipping import (
    Adaptive,
    ByNorm,
    ByValue,
    adaptive_clip,
    clip_by_value,
    gradient_norm,
    head_parameters,
)


def model_with_gradients(scale=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 1, bias=False))
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape) * scale
    model[2].bias.grad = None
    return model


def gradients(model):
    return [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def assert_bit_equal(ours, theirs):
    for left, right in zip(ours, theirs, strict=True):
        assert (left is None and right is None) or torch.equal(left, right)


@pytest.mark.parametrize("scale", [1.0, 1e-3, float("nan")])
@pytest.mark.parametrize("norm_type", [2.0, 1.0, float("inf")])
def test_clipping_by_norm_is_bit_equal_to_torch(scale, norm_type):
    ours, theirs = model_with_gradients(scale), model_with_gradients(scale)
    norm = ByNorm(0.5, norm_type)(list(ours.parameters()))
    expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5, norm_type)
    assert torch.equal(norm, expected) or (norm.isnan() and expected.isnan())
    if not norm.isnan():
        assert_bit_equal(gradients(ours), gradients(theirs))


def test_the_norm_alone_changes_nothing():
    model = model_with_gradients()
    before = gradients(model)
    norm = gradient_norm(list(model.parameters()))
    exact = torch.cat([g.double().flatten() for g in before if g is not None]).norm()
    torch.testing.assert_close(norm.double(), exact, rtol=1e-6, atol=0)
    assert_bit_equal(gradients(model), before)


def test_clipping_by_value_clamps_each_element():
    model = model_with_gradients()
    before = gradients(model)
    clip_by_value(list(model.parameters()), 0.3)
    assert_bit_equal(gradients(model), [None if g is None else g.clamp(-0.3, 0.3) for g in before])


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_adaptive_clipping_limits_each_unit(scale):
    model = model_with_gradients(scale)
    with torch.no_grad():
        model[3].weight.zero_()
    before = gradients(model)
    adaptive_clip(model.parameters(), ratio=0.05, eps=1e-3)
    for parameter, old in zip(model.parameters(), before, strict=True):
        if old is None:
            continue
        units = [(parameter.detach(), old, parameter.grad)]
        if old.ndim > 1:
            units = [(parameter[i].detach(), old[i], parameter.grad[i]) for i in range(old.shape[0])]
        for weight, was, now in units:
            limit = 0.05 * max(weight.double().norm().item(), 1e-3)
            length = was.double().norm().item()
            expected = was if length <= limit else was * (limit / length)
            torch.testing.assert_close(now, expected, rtol=1e-5, atol=1e-12)


def test_adaptive_clipping_survives_a_zero_gradient():
    parameter = nn.Parameter(torch.ones(2, 2))
    parameter.grad = torch.zeros(2, 2)
    adaptive_clip([parameter])
    assert torch.equal(parameter.grad, torch.zeros(2, 2))


def test_clippers_clip_and_return_the_norm_from_before():
    for clipper, clip in [
        (ByNorm(0.5), lambda ps: nn.utils.clip_grad_norm_(ps, 0.5)),
        (ByValue(0.1), lambda ps: clip_by_value(ps, 0.1)),
        (Adaptive(0.02), lambda ps: adaptive_clip(ps, 0.02)),
    ]:
        ours, theirs = model_with_gradients(), model_with_gradients()
        expected = gradient_norm(list(theirs.parameters()))
        assert torch.equal(clipper(list(ours.parameters())), expected)
        clip(list(theirs.parameters()))
        assert_bit_equal(gradients(ours), gradients(theirs))


def test_the_adaptive_clipper_leaves_out_what_it_is_told():
    model = model_with_gradients()
    head = model[3].weight.grad.clone()
    Adaptive(1e-4, skip=[model[3].weight])(list(model.parameters()))
    assert torch.equal(model[3].weight.grad, head)
    assert model[1].weight.grad.norm() < 0.1


def test_the_head_is_the_linear_layer_defined_last():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3), nn.LayerNorm(3))
    assert [id(parameter) for parameter in head_parameters(model)] == [id(p) for p in model[1].parameters()]


@pytest.mark.parametrize(
    "model",
    [
        nn.Conv1d(1, 1, 1),
        nn.Linear(2, 2),
        nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2)),
    ],
    ids=["none", "one", "one that is trained"],
)
def test_a_model_that_trains_nothing_but_a_head_has_none(model):
    assert head_parameters(model) == []


@pytest.mark.parametrize("clipper", [ByNorm(0.5), ByValue(0.1), Adaptive(0.02)])
def test_no_gradients_at_all_are_no_error(clipper):
    assert clipper(list(nn.Linear(2, 2).parameters())) == 0.0


@pytest.mark.parametrize("clipper", [ByNorm(0.5), ByValue(0.1), Adaptive(0.02)])
def test_clipping_reads_nothing_on_the_host(clipper):
    """A fake tensor has no value: reading one would raise."""
    with torch._subclasses.fake_tensor.FakeTensorMode():
        parameters = [nn.Parameter(torch.empty(3, 2)), nn.Parameter(torch.empty(3))]
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        clipper(parameters)


def test_parameters_on_several_meshes_are_clipped_by_their_common_norm(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        plain, mixed = model_with_gradients(), model_with_gradients()
        weight = nn.Parameter(distribute_tensor(mixed[1].weight.detach(), mesh))
        weight.grad = distribute_tensor(mixed[1].weight.grad, mesh)
        mixed[1].weight = weight
        norm = ByNorm(0.5)(list(mixed.parameters()))
        torch.testing.assert_close(norm, ByNorm(0.5)(list(plain.parameters())))
        torch.testing.assert_close(mixed[1].weight.grad.full_tensor(), plain[1].weight.grad)
        torch.testing.assert_close(mixed[0].weight.grad, plain[0].weight.grad)
    finally:
        torch.distributed.destroy_process_group()
