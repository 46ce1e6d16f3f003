"""The engine against loops written by hand: same model, same data, bit for bit."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from surestep.engine.engine import Engine
from surestep.engine.precision import make_precision
from surestep.engine.strategies.single import SingleDevice
from surestep.errors import ArgumentError
from surestep.optim.clipping import ByNorm
from surestep.runtime.world import World
from surestep.training.protocols import Group
from surestep.training.tally import Tally

CPU = torch.device("cpu")
MAX_NORM = 0.5


class Fired:
    def __init__(self, on: dict[str, Any] | None = None) -> None:
        self.events: list[str] = []
        self.on = on or {}

    def fire(self, event: str, **extra: Any) -> None:
        self.events.append(event)
        self.on.get(event, lambda: None)()


def whole(batches: list[Any], items: int | None) -> Group:
    return Group(batches, items, len(batches))


class Stepper:
    """A trainer's share of a step: the mean squared error, divided for accumulation."""

    def __init__(self, engine: Engine, factor: float = 1.0) -> None:
        self.engine, self.factor = engine, factor
        self.control = SimpleNamespace(should_epoch_stop=False, should_training_stop=False)
        self.current_gradient_accumulation_steps = 1
        self.seen: list[tuple[Any, Any]] = []

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        self.seen.append((model, num_items_in_batch))
        x, y = inputs
        loss = self.factor * nn.functional.mse_loss(model(x), y) / self.current_gradient_accumulation_steps
        self.engine.backward(loss)
        return loss.detach()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


def data(steps: int = 6, micro: int = 3) -> list[list[tuple[Tensor, Tensor]]]:
    generator = torch.Generator().manual_seed(1)
    return [
        [(torch.randn(5, 4, generator=generator), torch.randn(5, 1, generator=generator)) for _ in range(micro)]
        for _ in range(steps)
    ]


def engine_for(model: nn.Module, precision: str = "no", *, steps_schedule: bool = True) -> Engine:
    engine = Engine(SingleDevice(World(), CPU), make_precision(precision, CPU))
    engine.prepare(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
    engine.drive(optimizer, schedule, ByNorm(MAX_NORM), steps_schedule=steps_schedule)
    return engine


def trained(precision: str, factors: list[float] | None = None) -> tuple[nn.Module, list[Any], Engine]:
    """Train by the engine; return the model and what each step noted."""
    model, notes = network(), []
    engine = engine_for(model, precision)
    stepper, tally = Stepper(engine), Tally(CPU)
    with engine.computing(model):
        for number, group in enumerate(data()):
            stepper.factor = 1.0 if factors is None else factors[number]
            assert engine.forward_backward(stepper, whole(group, None), tally, Fired())
            engine.apply(tally, Fired())
            notes.append((tally.loss.item(), float(tally.grad_norm), tally.learning_rate))
            tally.loss.zero_()
    return model, notes, engine


def by_hand(precision: str, factors: list[float] | None = None) -> tuple[nn.Module, list[Any], Any]:
    """The same in plain PyTorch."""
    dtype = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    model, notes = network(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
    scaler = torch.amp.GradScaler("cpu", enabled=precision == "fp16")
    for number, group in enumerate(data()):
        total = torch.zeros(())
        for x, y in group:
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                prediction = model(x)
            loss = nn.functional.mse_loss(prediction.float(), y) / len(group)
            loss = loss if factors is None else factors[number] * loss
            scaler.scale(loss).backward()
            total += loss.detach()
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        rate, scale = optimizer.param_groups[0]["lr"], scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() >= scale:
            schedule.step()
        optimizer.zero_grad()
        notes.append((total.item(), float(norm), rate))
    return model, notes, scaler


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_bit_equal_to_a_loop_by_hand(precision: str) -> None:
    ours, notes, _ = trained(precision)
    theirs, expected, _ = by_hand(precision)

    assert notes == expected
    assert_equal(ours, theirs)


def test_low_precision_is_another_computation() -> None:
    full, low = trained("no")[1], trained("bf16")[1]

    assert full != low
    assert full[0][0] == pytest.approx(low[0][0], rel=0.05)


def test_a_step_that_overflows_is_skipped_with_its_schedule_and_the_scale_shrinks() -> None:
    # The scaled loss of the third step is beyond float32, so that its gradients are not finite.
    factors = [1.0, 1.0, 1e36, 1.0, 1.0, 1.0]
    ours, notes, engine = trained("fp16", factors)
    theirs, expected, scaler = by_hand("fp16", factors)

    assert notes[3:] == expected[3:]
    assert notes[3][2] == notes[2][2]
    assert_equal(ours, theirs)
    assert engine.precision.state_dict() == scaler.state_dict()
    assert engine.precision.state_dict()["scale"] == 65536 / 2


def test_the_scale_goes_through_its_state() -> None:
    _, _, engine = trained("fp16", [1.0, 1e36, 1.0, 1.0, 1.0, 1.0])
    fresh = make_precision("fp16", CPU)
    fresh.load_state_dict(engine.precision.state_dict())

    assert fresh.state_dict() == engine.precision.state_dict()
    assert fresh.state_dict()["_growth_tracker"] == 4


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_other_precisions_have_nothing_to_keep(precision: str) -> None:
    made = make_precision(precision, CPU)

    assert made.state_dict() is None
    made.load_state_dict({})


# Order within a step


def test_events_come_where_the_original_fires_them() -> None:
    model = network()
    engine, fired, tally = engine_for(model), Fired(), Tally(CPU)
    engine.forward_backward(Stepper(engine), whole(data()[0], None), tally, fired)
    assert fired.events == ["on_substep_end"] * 2

    rates = []
    assert engine.optimizer is not None
    group = engine.optimizer.param_groups[0]
    has_gradients = lambda: all(parameter.grad is not None for parameter in model.parameters())  # noqa: E731
    before = copy.deepcopy(model.state_dict())
    changed = lambda: not torch.equal(model[0].weight, before["0.weight"])  # noqa: E731
    norms = lambda: float(torch.stack([p.grad.norm() for p in model.parameters()]).norm())  # noqa: E731
    noted = Fired(
        {
            "on_pre_optimizer_step": lambda: rates.append(
                ("pre", has_gradients(), changed(), norms() <= MAX_NORM + 1e-6)
            ),
            "on_optimizer_step": lambda: rates.append(("post", has_gradients(), changed(), group["lr"])),
        }
    )
    engine.apply(tally, noted)

    assert noted.events == ["on_pre_optimizer_step", "on_optimizer_step"]
    # Clipped and not yet applied; applied, with gradients still there and the rate of this step.
    assert rates == [("pre", True, False, True), ("post", True, True, 0.1)]
    assert group["lr"] == pytest.approx(0.09)
    assert tally.learning_rate == 0.1
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_the_trainer_is_told_how_many_micro_batches_and_items_there_are() -> None:
    model = network()
    engine = engine_for(model)
    stepper = Stepper(engine)
    engine.forward_backward(stepper, whole(data()[0][:2], 17), Tally(CPU), Fired())

    assert stepper.current_gradient_accumulation_steps == 2
    assert stepper.seen == [(model, 17)] * 2


@pytest.mark.parametrize("flag", ["should_epoch_stop", "should_training_stop"])
def test_a_step_is_broken_off_between_micro_batches_and_leaves_no_gradient(flag: str) -> None:
    model = network()
    engine = engine_for(model)
    stepper = Stepper(engine)
    fired = Fired({"on_substep_end": lambda: setattr(stepper.control, flag, True)})

    assert not engine.forward_backward(stepper, whole(data()[0], None), Tally(CPU), fired)
    assert len(stepper.seen) == 1
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_request_during_the_last_micro_batch_does_not_break_the_step_off() -> None:
    engine = engine_for(network())
    stepper = Stepper(engine)
    stepper.control.should_training_stop = True

    assert engine.forward_backward(stepper, whole(data()[0][:1], None), Tally(CPU), Fired())


def test_a_schedule_that_waits_for_a_metric_is_not_stepped() -> None:
    engine = engine_for(network(), steps_schedule=False)
    engine.forward_backward(Stepper(engine), whole(data()[0], None), Tally(CPU), Fired())
    engine.apply(Tally(CPU), Fired())

    assert engine.scheduler.last_epoch == 0


def test_gradients_of_parameters_that_no_optimizer_knows_are_dropped() -> None:
    model = network()
    engine = Engine(SingleDevice(World(), CPU), make_precision("no", CPU))
    engine.prepare(model)
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    engine.drive(optimizer, schedule, ByNorm(1.0), steps_schedule=True)
    engine.forward_backward(Stepper(engine), whole(data()[0], None), Tally(CPU), Fired())
    assert model[0].weight.grad is not None
    engine.apply(Tally(CPU), Fired())

    assert all(parameter.grad is None for parameter in model.parameters())


def test_replaced_parameters_are_known_after_a_refresh() -> None:
    model = network()
    engine = engine_for(model)
    model[2] = nn.Linear(8, 1)
    model[2].weight.grad = torch.ones_like(model[2].weight)
    engine.zero_grad()
    assert model[2].weight.grad is not None

    engine.refresh()
    engine.zero_grad()
    assert model[2].weight.grad is None


def test_gradients_are_exchanged_on_the_last_micro_batch_only() -> None:
    inside, told = False, list[bool]()

    class Watched(SingleDevice):
        @contextmanager
        def accumulating(self, model: nn.Module) -> Any:
            nonlocal inside
            inside = True
            yield
            inside = False

    class Looking(Stepper):
        def training_step(self, *given: Any) -> Tensor:
            told.append(inside)
            return super().training_step(*given)

    model = network()
    engine = Engine(Watched(World(size=2), CPU), make_precision("no", CPU))
    engine.prepare(model)
    engine.forward_backward(Looking(engine), whole(data()[0], None), Tally(CPU), Fired())

    assert told == [True, True, False]


def test_a_precision_that_the_strategy_does_not_take_is_refused_by_name() -> None:
    class OnlyFull(SingleDevice):
        precisions = frozenset({"no"})

    with pytest.raises(ArgumentError, match=r"OnlyFull does not run in bf16; it takes no\."):
        Engine(OnlyFull(World(), CPU), make_precision("bf16", CPU))


def test_the_users_model_is_found_inside_a_compiled_one() -> None:
    engine = Engine(SingleDevice(World(), CPU), make_precision("no", CPU))
    model = network()
    compiled = torch.compile(model, backend="eager")

    assert engine.unwrap(compiled) is model
    assert engine.unwrap(model) is model
