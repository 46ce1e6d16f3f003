import copy
import inspect
import math
import multiprocessing
import sys
import warnings

import pytest
import torch
import transformers.optimization as original
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau, StepLR
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.trainer_utils import SchedulerType

from surestep.errors import ArgumentError
from surestep.optim import schedules
from surestep.optim.greedy import GreedyLR
from surestep.optim.schedules import SCHEDULES, StepSchedule, build_schedule, get_scheduler, needs_metric

RATE = 3e-4


def optimizer(lr=RATE):
    parameters = [nn.Parameter(torch.ones(1)) for _ in range(3)]
    return torch.optim.SGD(
        [{"params": parameters[:1]}, {"params": parameters[1:2]}, {"params": parameters[2:], "lr": 7e-3}], lr=lr
    )


def run(schedule, steps):
    rates = [schedule.get_last_lr()]
    for _ in range(steps):
        schedule.optimizer.step()
        schedule.step()
        assert schedule.get_last_lr() == [group["lr"] for group in schedule.optimizer.param_groups]
        rates.append(schedule.get_last_lr())
    return rates


CASES = [
    ("linear", {}),
    ("constant", {}),
    ("constant_with_warmup", {}),
    ("cosine", {}),
    ("cosine", {"num_cycles": 1.3}),
    ("cosine_with_restarts", {}),
    ("cosine_with_restarts", {"num_cycles": 3}),
    ("polynomial", {}),
    ("polynomial", {"lr_end": 1e-5, "power": 2.0}),
    ("polynomial", {"lr_end": 1e-5, "power": 0.5}),
    ("inverse_sqrt", {}),
    ("inverse_sqrt", {"timescale": 33}),
    ("cosine_with_min_lr", {"min_lr": 2e-5}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.1, "num_cycles": 0.8}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.0}),
    ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.1}),
    ("cosine_warmup_with_min_lr", {"min_lr": 2e-5, "warmup_lr_rate": 0.25, "num_cycles": 0.7}),
    ("warmup_stable_decay", {"num_decay_steps": 13}),
    ("warmup_stable_decay", {"num_decay_steps": 0}),
    ("warmup_stable_decay", {"num_decay_steps": 13, "decay_type": "linear", "warmup_type": "cosine"}),
    (
        "warmup_stable_decay",
        {"num_decay_steps": 20, "decay_type": "1-sqrt", "warmup_type": "1-sqrt", "min_lr_ratio": 0.1},
    ),
    ("warmup_stable_decay", {"num_decay_steps": 20, "num_cycles": 1.5, "min_lr_ratio": 0.2}),
    ("warmup_stable_decay", {"num_decay_steps": 10, "num_stable_steps": 5}),
    ("warmup_stable_decay", {"num_decay_steps": 300}),
]


@pytest.mark.parametrize("warmup", [0, 1, 10, 49])
@pytest.mark.parametrize("total", [50, 200])
@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_every_rate_of_every_step_is_the_originals(name, kwargs, total, warmup):
    ours = build_schedule(name, optimizer(), num_warmup_steps=warmup, num_training_steps=total, scheduler_kwargs=kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = original.get_scheduler(name, optimizer(), warmup, total, kwargs)
    assert run(ours, total + 7) == run(theirs, total + 7)


def test_the_cases_cover_every_name_of_the_original():
    followers = {"reduce_lr_on_plateau", "greedy"}
    assert {name for name, _ in CASES} | followers == set(SCHEDULES) == {member.value for member in SchedulerType}


@pytest.mark.parametrize("name", [name for name in dir(original) if name.startswith("get_") and "schedule" in name])
def test_the_functions_have_the_originals_signatures(name):
    if name == "get_adafactor_schedule":
        pytest.skip("beside its optimizer, in adafactor")
    theirs = inspect.signature(getattr(original, name)).parameters
    ours = inspect.signature(getattr(schedules, name)).parameters
    assert list(ours) == list(theirs)
    assert [p.default for p in ours.values()] == [p.default for p in theirs.values()]


@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_the_state_is_the_originals_both_ways(name, kwargs):
    total, warmup = 60, 5
    kwargs = {**kwargs, "num_decay_steps": 13} if name == "warmup_stable_decay" else kwargs
    makers = [get_scheduler, original.get_scheduler]
    for first, second in (makers, makers[::-1]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            saved = first(name, optimizer(), warmup, total, kwargs)
            loaded = second(name, optimizer(), warmup, total, kwargs)
        run(saved, 17)
        state = copy.deepcopy(saved.state_dict())
        loaded.load_state_dict(copy.deepcopy(state))
        assert loaded.state_dict() == state
        loaded.optimizer.load_state_dict(saved.optimizer.state_dict())
        assert run(saved, 40) == run(loaded, 40)


def test_a_resumed_schedule_follows_the_new_length():
    saved = get_scheduler("linear", optimizer(), 0, 10)
    run(saved, 5)
    longer = get_scheduler("linear", optimizer(), 0, 20)
    longer.load_state_dict(saved.state_dict())
    longer.optimizer.step()
    longer.step()
    assert longer.get_last_lr()[0] == RATE * (20 - 6) / 20


def test_a_schedule_starts_at_a_given_step():
    model = optimizer()
    for group in model.param_groups:
        group["initial_lr"] = group["lr"]
    schedule = schedules.get_linear_schedule_with_warmup(model, 0, 10, last_epoch=3)
    assert schedule.get_last_lr()[0] == RATE * 6 / 10


def test_it_is_torchs_schedule():
    schedule = get_scheduler("cosine", optimizer(), 1, 10)
    assert isinstance(schedule, LambdaLR)
    assert isinstance(schedule, LRScheduler)


def test_each_group_can_have_a_curve_of_its_own():
    curves = [lambda step: 1.0 / (step + 1), lambda step: 0.5**step, lambda step: 1.0 / (step + 1)]
    assert run(StepSchedule(optimizer(), curves), 20) == run(LambdaLR(optimizer(), curves), 20)


def test_a_rate_that_is_a_tensor_is_filled_in_place():
    ours, theirs = [optimizer(torch.tensor(RATE)) for _ in range(2)]
    rates = [group["lr"] for group in ours.param_groups[:2]]
    left, right = get_scheduler("linear", ours, 3, 10), original.get_scheduler("linear", theirs, 3, 10)
    for _ in range(8):
        for schedule in (left, right):
            schedule.optimizer.step()
            schedule.step()
        assert all(group["lr"] is rate for group, rate in zip(ours.param_groups, rates, strict=False))
        assert left.get_last_lr() == right.get_last_lr()


def test_stepping_before_the_optimizer_still_warns():
    schedule = get_scheduler("linear", optimizer(), 0, 10)
    with pytest.warns(UserWarning, match=r"before `optimizer.step\(\)`"):
        schedule.step()


def test_setting_the_step_still_works():
    schedule = get_scheduler("linear", optimizer(), 0, 10)
    run(schedule, 3)
    with pytest.warns(UserWarning, match="epoch parameter"):
        schedule.step(9)
    assert schedule.get_last_lr()[0] == pytest.approx(RATE * 0.1)


def calls_of(function):
    calls = []
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event == "call" else None)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize(("name", "cost"), [("linear", 2), ("cosine", 3), ("constant", 2)])
def test_a_step_costs_few_calls(name, cost):
    schedule = get_scheduler(name, optimizer(), 0, 100)
    run(schedule, 3)
    theirs = original.get_scheduler(name, optimizer(), 0, 100)
    run(theirs, 3)
    assert len(calls_of(schedule.step)) == cost
    assert len(calls_of(theirs.step)) > 10


class NoTensor(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} was called")


@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_a_step_makes_no_tensor(name, kwargs):
    schedule = get_scheduler(name, optimizer(), 5, 400, kwargs)
    schedule.optimizer.step()
    with NoTensor():
        for _ in range(20):
            schedule.step()


@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_the_curves_are_data(name, kwargs):
    """A curve reaches another process, which a lambda or a closure would not."""
    curve = get_scheduler(name, optimizer(), 5, 400, kwargs).lr_lambdas[0]
    sent = multiprocessing.reduction.ForkingPickler.loads(multiprocessing.reduction.ForkingPickler.dumps(curve))
    assert sent(7) == curve(7)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("liner", {}, "lr_scheduler_type is 'liner'; write one of linear, cosine"),
        ("linear", {"num_cycles": 2}, "num_cycles, which the schedule 'linear' does not take; it takes: none"),
        ("constant", {"power": 2}, "'constant' does not take; it takes: none"),
        ("polynomial", {"lr_init": 2}, "it takes: lr_end, power"),
        ("cosine", {"num_warmup_steps": 2}, "it takes: num_cycles"),
        ("reduce_lr_on_plateau", {"smooth": True}, "it takes: mode, factor, patience"),
        ("greedy", {"gamma": 2}, "it takes: mode, factor, patience, .*reset_start"),
        ("warmup_stable_decay", {}, "needs num_decay_steps in lr_scheduler_kwargs"),
        (
            "warmup_stable_decay",
            {"num_decay_steps": 1, "decay_type": "exp"},
            "decay_type is 'exp'; write one of linear",
        ),
        ("warmup_stable_decay", {"num_decay_steps": 1, "warmup_type": "exp"}, "warmup_type is 'exp'"),
        ("cosine_with_min_lr", {}, "exactly one"),
        ("cosine_warmup_with_min_lr", {"min_lr": 1e-5, "min_lr_rate": 0.1}, "exactly one"),
        ("polynomial", {"lr_end": 1.0}, "lr_end is 1.0, the learning rate 0.0003"),
        ("greedy", {"factor": 1.0}, "factor is 1.0"),
        ("greedy", {"mode": "low"}, "mode is 'low'; write min or max"),
        ("greedy", {"threshold_mode": "log"}, "write rel or abs"),
        ("greedy", {"min_lr": [1.0]}, "min_lr has 1 values, the optimizer 3 groups"),
    ],
)
def test_what_a_schedule_cannot_take_is_an_error(name, kwargs, message):
    with pytest.raises(ArgumentError, match=message):
        build_schedule(name, optimizer(), num_warmup_steps=0, num_training_steps=10, scheduler_kwargs=kwargs)


@pytest.mark.parametrize(("name", "steps"), [("linear", (None, 5)), ("linear", (5, None)), ("inverse_sqrt", (None, 5))])
def test_a_missing_number_of_steps_is_an_error(name, steps):
    with pytest.raises(ArgumentError, match=f"'{name}' needs num_(warmup|training)_steps"):
        get_scheduler(name, optimizer(), *steps)


def test_stages_need_a_length():
    with pytest.raises(ArgumentError, match="num_training_steps or num_stable_steps"):
        get_scheduler("warmup_stable_decay", optimizer(), 1, None, {"num_decay_steps": 3})
    schedule = get_scheduler("warmup_stable_decay", optimizer(), 1, None, {"num_decay_steps": 3, "num_stable_steps": 4})
    assert run(schedule, 8)[-1][0] == 0.0


@pytest.mark.parametrize(
    ("kwargs", "warned"),
    [
        ({"num_decay_steps": 3}, False),
        ({"num_decay_steps": 3, "num_stable_steps": 6}, False),
        ({"num_decay_steps": 3, "num_stable_steps": 5}, True),
        ({"num_decay_steps": 30}, True),
    ],
)
def test_stages_that_do_not_fit_are_said(kwargs, warned, monkeypatch):
    said = []
    monkeypatch.setattr(schedules._logger, "warning", lambda *message: said.append(message[0] % message[1:]))
    get_scheduler("warmup_stable_decay", optimizer(), 1, 10, kwargs)
    assert bool(said) == warned
    assert all("do not fit the 10 steps of training" in message for message in said)


def test_a_run_that_is_all_warm_up_ends():
    schedule = get_scheduler("polynomial", optimizer(), 10, 10)
    assert run(schedule, 10)[-1][0] == pytest.approx(1e-7)


def metrics(count):
    generator = torch.Generator().manual_seed(3)
    noise = torch.rand(count, generator=generator).tolist()
    return [math.cos(i / 9) + 0.05 * value for i, value in enumerate(noise)]


@pytest.mark.parametrize(
    "kwargs",
    [
        {"patience": 1, "min_lr": 1e-5, "max_lr": 5e-3},
        {"patience": 1, "mode": "max", "min_lr": 1e-5, "threshold": 1e-2, "threshold_mode": "rel"},
        {"patience": 0, "factor": 0.5, "min_lr": [1e-5, 2e-4, 1e-3], "max_lr": (1e-2, 1e-3, 7e-3), "reset_start": 3},
        {"patience": 0, "factor": 0.5, "min_lr": 1e-5, "smooth": True, "window_size": 4, "reset_start": 2},
        {"patience": 1, "cooldown": 2, "warmup": 3, "min_lr": 1e-5, "eps": 1e-5},
        {"patience": 2, "threshold_mode": "rel", "min_lr": 1e-6},
        {},
    ],
)
def test_the_greedy_schedule_is_the_originals(kwargs):
    ours, theirs = GreedyLR(optimizer(), **kwargs), original.GreedyLR(optimizer(), **kwargs)
    for step, value in enumerate(metrics(150)):
        ours.step(value)
        theirs.step(value)
        assert ours.get_last_lr() == theirs.get_last_lr() == [g["lr"] for g in ours.optimizer.param_groups]
        assert ours.state_dict() == theirs.state_dict(), step


def test_a_raise_gives_the_greedy_schedule_its_patience_at_the_lowest_rate_back():
    kwargs = {"patience": 0, "factor": 0.5, "min_lr": [3e-4, 3e-4, 7e-3], "max_lr": 3.1e-4, "reset_start": 3}
    ours, theirs = GreedyLR(optimizer(), **kwargs), original.GreedyLR(optimizer(), **kwargs)
    for value in (5.0, 6.0, 6.0, 4.0, 6.0, 6.0, 6.0, 3.0):
        ours.step(value)
        theirs.step(value)
        assert ours.state_dict() == theirs.state_dict()


@pytest.mark.parametrize("smooth", [False, True])
def test_the_greedy_schedule_resumes(smooth):
    kwargs = {"patience": 1, "min_lr": 1e-5, "smooth": smooth, "window_size": 3}
    whole, values = GreedyLR(optimizer(), **kwargs), metrics(80)
    for value in values[:40]:
        whole.step(value)
    resumed = GreedyLR(optimizer(), **kwargs)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    assert [group["lr"] for group in resumed.optimizer.param_groups] == whole.get_last_lr()
    for value in values[40:]:
        whole.step(value)
        resumed.step(value)
        assert resumed.state_dict() == whole.state_dict()


def test_the_greedy_schedule_speaks_when_asked(capsys):
    schedule = GreedyLR(optimizer(), patience=0, min_lr=1e-5, factor=0.5, reset_start=1, verbose=True)
    for value in (1.0, 2.0, *[3.0] * 12):
        schedule.step(value, epoch=5)
    said = capsys.readouterr().out
    assert "evaluation 5: learning rate of group 0 is now 6.0000e-04" in said
    assert "starts over" in said


def test_plateau_is_torchs():
    schedule = get_scheduler(
        "reduce_lr_on_plateau", optimizer(), scheduler_specific_kwargs={"patience": 0, "factor": 0.5}
    )
    assert type(schedule) is ReduceLROnPlateau
    for value in (1.0, 2.0):
        schedule.step(value)
    assert schedule.get_last_lr()[0] == RATE / 2


def test_which_schedules_need_a_metric():
    for name in SCHEDULES:
        kwargs = (
            {"min_lr": 1e-5} if "min_lr" in name else {"num_decay_steps": 2} if name == "warmup_stable_decay" else {}
        )
        schedule = get_scheduler(name, optimizer(), 1, 10, kwargs)
        assert needs_metric(schedule) == (name in ("reduce_lr_on_plateau", "greedy")), name
    assert needs_metric(original.GreedyLR(optimizer()))
    assert not needs_metric(StepLR(optimizer(), 3))
    assert not needs_metric(None)
