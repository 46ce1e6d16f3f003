import copy

import pytest
import torch
import transformers.optimization as original
from torch import nn

from surestep.errors import ArgumentError, ModelError
from surestep.optim.adafactor import Adafactor, AdafactorSchedule, get_adafactor_schedule

OWN_RATE = {"lr": 1e-2, "scale_parameter": False, "relative_step": False}
OPTIONS = [
    OWN_RATE,
    {},
    {"warmup_init": True},
    {"scale_parameter": False},
    {"lr": 1e-2, "relative_step": False},
    {**OWN_RATE, "beta1": 0.9},
    {**OWN_RATE, "weight_decay": 0.1},
    {"weight_decay": 0.1, "beta1": 0.8},
    {**OWN_RATE, "clip_threshold": 0.1, "decay_rate": -0.5, "eps": (1e-8, 1e-2)},
]
SHAPES = [(), (5,), (3, 4), (2, 3, 4), (2, 1, 3, 3), (1, 6)]


def parameters(dtype):
    torch.manual_seed(0)
    # The last is small, so that its scale is at the lower bound.
    values = [*[torch.randn(shape) for shape in SHAPES], torch.full((3, 2), 1e-6)]
    return [nn.Parameter(value.to(dtype)) for value in values]


def run(optimizer, steps, start=0):
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype) * (1 + step)
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("options", OPTIONS)
def test_twenty_steps_are_the_originals(options, dtype):
    ours, theirs = parameters(dtype), parameters(dtype)
    run(Adafactor(ours, **options), 20)
    run(original.Adafactor(theirs, **options), 20)
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6 if dtype != torch.bfloat16 else 1e-2, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [OWN_RATE, {**OWN_RATE, "beta1": 0.9}])
def test_a_trainers_adafactor_is_bit_equal(options, dtype):
    ours, theirs = parameters(dtype), parameters(dtype)
    run(Adafactor(ours, **options), 20)
    run(original.Adafactor(theirs, **options), 20)
    assert all(torch.equal(left, right) for left, right in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_resumes_bit_exactly(dtype):
    whole = Adafactor(parameters(dtype), beta1=0.9)
    run(whole, 5)
    state = copy.deepcopy(whole.state_dict())
    values = [parameter.detach().clone() for parameter in whole.param_groups[0]["params"]]
    run(whole, 5, start=5)
    resumed = Adafactor([nn.Parameter(value) for value in values], beta1=0.9)
    resumed.load_state_dict(state)
    run(resumed, 5, start=5)
    pairs = zip(whole.param_groups[0]["params"], resumed.param_groups[0]["params"], strict=True)
    assert all(torch.equal(left, right) for left, right in pairs)


def test_it_takes_over_the_originals_state():
    theirs = original.Adafactor(parameters(torch.float32), **OWN_RATE)
    run(theirs, 5)
    ours = Adafactor([nn.Parameter(p.detach().clone()) for p in theirs.param_groups[0]["params"]], **OWN_RATE)
    ours.load_state_dict(theirs.state_dict())
    run(theirs, 5, start=5)
    run(ours, 5, start=5)
    pairs = zip(theirs.param_groups[0]["params"], ours.param_groups[0]["params"], strict=True)
    assert all(torch.equal(left, right) for left, right in pairs)


def test_parameters_without_a_gradient_stay():
    parameter = nn.Parameter(torch.ones(3))
    Adafactor([parameter]).step()
    assert torch.equal(parameter, torch.ones(3))


def test_a_closure_is_called_with_gradients():
    parameter = nn.Parameter(torch.ones(3))

    def closure():
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert Adafactor([parameter]).step(closure) == 3.0
    assert parameter[0] < 1.0


def test_nothing_is_read_on_the_host():
    with torch._subclasses.fake_tensor.FakeTensorMode():
        fake = [nn.Parameter(torch.empty(3, 2)), nn.Parameter(torch.empty(3))]
        optimizer = Adafactor(fake, beta1=0.9, weight_decay=0.1)
        for _ in range(2):
            for parameter in fake:
                parameter.grad = torch.empty_like(parameter)
            optimizer.step()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"lr": 1.0}, "no lr"), ({"relative_step": False, "warmup_init": True}, "leave one out")],
)
def test_options_that_exclude_each_other_are_errors(options, message):
    with pytest.raises(ArgumentError, match=message):
        Adafactor(parameters(torch.float32), **options)


def test_sparse_gradients_are_an_error():
    embedding = nn.Embedding(3, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ModelError, match="sparse=False"):
        Adafactor(embedding.parameters()).step()


@pytest.mark.parametrize("options", [{"warmup_init": True}, {"scale_parameter": False}, OWN_RATE])
def test_the_schedule_shows_the_originals_rates(options):
    ours, theirs = (
        Adafactor(parameters(torch.float32), **options),
        original.Adafactor(parameters(torch.float32), **options),
    )
    left, right = get_adafactor_schedule(ours, 0.5), original.get_adafactor_schedule(theirs, 0.5)
    assert left.get_last_lr() == right.get_last_lr() == [0.5]
    for step in range(5):
        for optimizer, schedule in ((ours, left), (theirs, right)):
            run(optimizer, 1, start=step)
            schedule.step()
        assert float(left.get_last_lr()[0]) == pytest.approx(float(right.get_last_lr()[0]), rel=1e-6)


def test_the_schedule_of_an_empty_group_shows_the_initial_rate():
    optimizer = Adafactor([{"params": parameters(torch.float32)}, {"params": []}], scale_parameter=False)
    schedule = AdafactorSchedule(optimizer, 0.25)
    run(optimizer, 1)
    schedule.step()
    assert schedule.get_last_lr() == [0.01, 0.25]
