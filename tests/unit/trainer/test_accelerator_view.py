"""The members of the accelerator that subclasses ask for, held against those of a real one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import AutocastKwargs
from tests.small import Points, line, quick
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from surestep import Trainer
from surestep.errors import NotServedError

# What the census of subclasses found in use, and what the libraries of today use, most used first.
USED = (
    "gather_for_metrics", "device", "gather", "unwrap_model", "is_main_process", "prepare_model", "state", "prepare",
    "num_processes", "reduce", "print", "parallelism_config", "process_index", "local_process_index",
    "is_local_main_process", "backward", "clip_grad_norm_", "wait_for_everyone", "pad_across_processes", "no_sync",
    "autocast", "mixed_precision", "gradient_accumulation_steps", "sync_gradients", "split_between_processes",
    "distributed_type", "even_batches", "dataloader_config",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _accelerate_as_found() -> Iterator[None]:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return quick(tmp_path, gradient_accumulation_steps=3)


@pytest.fixture
def real() -> Accelerator:
    return Accelerator(cpu=True)


def test_everything_in_use_is_there(trainer: Trainer, real: Accelerator) -> None:
    for name in USED:
        getattr(real, name)
        getattr(trainer.accelerator, name)


@pytest.mark.parametrize(
    "name",
    [
        "device", "num_processes", "process_index", "local_process_index", "is_main_process", "is_local_main_process",
        "mixed_precision", "gradient_accumulation_steps", "sync_gradients", "parallelism_config", "even_batches",
        "optimizer_step_was_skipped", "distributed_type", "use_distributed", "is_last_process", "split_batches",
    ],
)  # fmt: skip
def test_a_plain_member_is_what_a_real_accelerator_says(trainer: Trainer, real: Accelerator, name: str) -> None:
    assert getattr(trainer.accelerator, name) == getattr(real, name)


_TENSOR = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
_CALLS: dict[str, Callable[[Any], Any]] = {
    "gather": lambda one: one.gather(_TENSOR),
    "gather a scalar": lambda one: one.gather(torch.tensor(2.0)),
    "gather a nest": lambda one: one.gather({"a": _TENSOR, "b": (_TENSOR, [_TENSOR])}),
    "gather_for_metrics": lambda one: one.gather_for_metrics((_TENSOR, _TENSOR)),
    "gather_for_metrics of texts": lambda one: one.gather_for_metrics(["a", "b"]),
    "gather_for_metrics of objects": lambda one: one.gather_for_metrics([{"a": 1}], use_gather_object=True),
    "reduce": lambda one: one.reduce(_TENSOR),
    "reduce to a mean": lambda one: one.reduce({"a": _TENSOR}, reduction="mean", scale=0.5),
    "pad_across_processes": lambda one: one.pad_across_processes(_TENSOR, dim=1, pad_index=-100),
    "get_state_dict": lambda one: dict(one.get_state_dict(line())),
    "wait_for_everyone": lambda one: one.wait_for_everyone(),
    "split_between_processes": lambda one: _entered(one.split_between_processes([1, 2, 3])),
    "on_main_process": lambda one: one.on_main_process(lambda: "ran")(),
    "prepare something else": lambda one: one.prepare("loader", 3),
    "prepare one thing": lambda one: one.prepare("loader"),
}


def _entered(context: Any) -> Any:
    with context as value:
        return value


@pytest.mark.parametrize("name", _CALLS)
def test_a_call_gives_what_a_real_accelerator_gives(trainer: Trainer, real: Accelerator, name: str) -> None:
    torch.testing.assert_close(_plain(_CALLS[name](trainer.accelerator)), _plain(_CALLS[name](real)))


def _plain(value: Any) -> Any:
    """Return what `assert_close` can compare: texts and nothing are put as lists of numbers."""
    if value is None or isinstance(value, str):
        return [ord(letter) for letter in str(value)]
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def test_only_the_main_process_prints(
    trainer: Trainer, real: Accelerator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.accelerator.print("one", 2, sep="-")
    ours = capsys.readouterr().out
    real.print("one", 2, sep="-")

    assert ours == capsys.readouterr().out == "one-2\n"
    monkeypatch.setattr(type(trainer.accelerator), "is_local_main_process", False)
    trainer.accelerator.print("nothing")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("keep", [True, False])
def test_unwrapping(trainer: Trainer, real: Accelerator, keep: bool) -> None:
    model = line()
    compiled = torch.compile(model, backend="eager")

    for one in (trainer.accelerator, real):
        assert one.unwrap_model(model, keep_fp32_wrapper=False) is model
        assert one.unwrap_model(compiled, keep_torch_compile=keep) is (compiled if keep else model)


def test_backward_and_clipping(trainer: Trainer, real: Accelerator) -> None:
    for one in (trainer.accelerator, real):
        model = nn.Linear(2, 1, bias=False)
        one.backward(model(torch.tensor([[3.0, 4.0]])).sum())
        assert model.weight.grad.tolist() == [[3.0, 4.0]]
        assert one.clip_grad_norm_(model.parameters(), 1.0).item() == 5.0
        assert model.weight.grad.norm().item() == pytest.approx(1.0, rel=1e-5)
        one.clip_grad_value_(model.parameters(), 0.1)
        assert model.weight.grad.tolist() == [[pytest.approx(0.1)] * 2]


def test_gradients_are_unscaled_before_they_are_clipped_and_once_only(tmp_path: Path) -> None:
    class Clips(Trainer):
        def training_step(self, model, inputs, num_items_in_batch=None):
            loss = super().training_step(model, inputs, num_items_in_batch)
            self.norm = self.accelerator.clip_grad_norm_(model.parameters(), 1e9)
            return loss

    norms = []
    for kind in (Trainer, Clips):
        trainer = quick(tmp_path, kind, model=line(), fp16=True, max_steps=1, logging_steps=1, max_grad_norm=1e9)
        precision = trainer.engine.precision
        precision.load_state_dict({**precision.state_dict(), "scale": 8.0})
        trainer.train()
        norms.append(trainer.state.log_history[0]["grad_norm"])

    assert norms[0] == pytest.approx(norms[1], rel=1e-6)
    assert trainer.norm.item() == pytest.approx(norms[0], rel=1e-6)


def test_a_step_that_overflowed_was_skipped(tmp_path: Path) -> None:
    trainer = quick(tmp_path, fp16=True, max_steps=1, optim="sgd")
    precision = trainer.engine.precision
    precision.load_state_dict({**precision.state_dict(), "scale": math.inf})
    trainer.train()

    assert trainer.accelerator.optimizer_step_was_skipped


def test_the_last_micro_batch_of_a_step_is_known_as_with_the_original(tmp_path: Path) -> None:
    import transformers

    def watched(base: Any) -> Any:
        class Watches(base):
            def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
                self.seen = [*getattr(self, "seen", []), self.accelerator.sync_gradients]
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch=num_items_in_batch)

        return Watches

    settings = {"gradient_accumulation_steps": 3, "eval_strategy": "epoch", "max_steps": 2}
    ours = quick(tmp_path, watched(Trainer), eval_dataset=Points(8), **settings)
    ours.train()
    theirs = watched(transformers.Trainer)(
        line(),
        transformers.TrainingArguments(
            str(tmp_path), per_device_train_batch_size=4, use_cpu=True, report_to="none", save_strategy="no",
            disable_tqdm=True, **settings,
        ),
        train_dataset=Points(),
        eval_dataset=Points(8),
    )  # fmt: skip
    theirs.train()

    assert ours.seen == theirs.seen == [False, False, True, False, True, True]


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
@pytest.mark.parametrize("handler", [None, AutocastKwargs(enabled=False)])
def test_autocast_for_code_outside_the_model(tmp_path: Path, precision: str, handler: AutocastKwargs | None) -> None:
    view = quick(tmp_path, **({} if precision == "no" else {precision: True})).accelerator
    dtype = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    with view.autocast(handler):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (dtype if handler is None else torch.float32)


def test_no_sync_is_a_context(trainer: Trainer, real: Accelerator) -> None:
    for one in (trainer.accelerator, real):
        with one.no_sync(trainer.model):
            pass


# Models


def test_a_teacher_computes_in_the_precision_of_the_run(tmp_path: Path) -> None:
    view, points = quick(tmp_path, bf16=True).accelerator, torch.randn(4, 3)
    seen = []
    for one in (view, Accelerator(cpu=True, mixed_precision="bf16")):
        teacher = one.prepare_model(line(), evaluation_mode=True)
        assert one.prepare_model(teacher) is teacher
        seen.append(teacher(points)["logits"])

    assert seen[0].dtype == torch.float32
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=0)
    assert not torch.equal(seen[0], line()(points)["logits"])


def test_the_trainers_own_model_is_prepared_by_the_engine_alone(tmp_path: Path) -> None:
    class Asks(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            assert self.accelerator.prepare(self.model) is self.model_wrapped
            self.forward = self.model.forward
            return super().compute_loss(model, inputs, return_outputs)

    trainer = quick(tmp_path, Asks, bf16=True, max_steps=1)
    assert trainer.accelerator.prepare_model(trainer.model) is trainer.model
    trainer.train()

    assert not hasattr(trainer.forward.__wrapped__, "__wrapped__")  # one precision, not two
    assert "forward" not in vars(trainer.model)


# Loaders


def _read(loader: Any) -> list[list[int]]:
    return [batch.tolist() for batch in loader]


def _shuffled(seed: int) -> DataLoader[int]:
    return DataLoader(range(10), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(seed))


class Pairs(BatchSampler):
    """A batch sampler of a user."""


def _pairs(seed: int) -> DataLoader[int]:
    sampler = RandomSampler(range(10), generator=torch.Generator().manual_seed(seed))
    return DataLoader(range(10), batch_sampler=Pairs(sampler, 2, drop_last=False))


@pytest.mark.parametrize("make", [_shuffled, _pairs])
@pytest.mark.parametrize("data_seed", [None, 11])
def test_a_loader_has_the_order_that_a_real_accelerator_gives_it(
    tmp_path: Path, make: Callable[[int], Any], data_seed: int | None
) -> None:
    from accelerate.utils import DataLoaderConfiguration

    torch.manual_seed(5)
    trainer = quick(tmp_path, seed=5, data_seed=data_seed)
    config = DataLoaderConfiguration(use_seedable_sampler=True, data_seed=data_seed)
    given = make(1)
    ours = trainer.accelerator.prepare(given)
    theirs = Accelerator(cpu=True, dataloader_config=config).prepare(make(2))

    assert [_read(ours), _read(ours)] == [_read(theirs), _read(theirs)]  # the second pass is another order
    assert type(given.batch_sampler.sampler) is RandomSampler  # the loader that was given is as it was


def test_a_loader_of_its_own_making_is_left_alone(trainer: Trainer) -> None:
    class Own(DataLoader):
        def __iter__(self):
            return iter([torch.tensor([9])])

    loader = Own(range(3))
    assert trainer.accelerator.prepare(loader) is loader


# What is not served, and what a real accelerator answers


def test_a_further_optimizer_is_refused(trainer: Trainer) -> None:
    trainer.create_optimizer_and_scheduler(2)
    view, own = trainer.accelerator, trainer.optimizer

    assert view.prepare(trainer.model, own, trainer.lr_scheduler) == (trainer.model, own, trainer.lr_scheduler)
    with pytest.raises(NotServedError, match=r"prepare_optimizer is not served\. The engine steps.*sync_gradients"):
        view.prepare(torch.optim.SGD(trainer.model.parameters()))
    with pytest.raises(NotServedError, match="an optimizer that is not the trainer's"):
        view.unscale_gradients(torch.optim.SGD(trainer.model.parameters()))


@pytest.mark.parametrize(
    ("name", "instead"),
    [("accumulate", "gradient_accumulation_steps"), ("save_state", "save_extra_state"), ("scaler", "precision")],
)
def test_what_a_real_accelerator_would_answer_wrongly_is_refused(trainer: Trainer, name: str, instead: str) -> None:
    with pytest.raises(NotServedError, match=rf"trainer\.accelerator\.{name} is not served\..*{instead}"):
        getattr(trainer.accelerator, name)


def test_a_name_that_no_accelerator_has_is_an_attribute_error(trainer: Trainer) -> None:
    assert not hasattr(trainer.accelerator, "nothing_of_that_name")
    assert not hasattr(trainer.accelerator, "__deepcopy__")
    with pytest.raises(AttributeError):
        trainer.accelerator.log_with = "wandb"


def test_the_real_accelerator_is_made_once_and_knows_precision_and_device(tmp_path: Path) -> None:
    view = quick(tmp_path, bf16=True).accelerator
    state = view.state

    assert view.state is state
    assert (state.mixed_precision, state.device, state.num_processes) == ("bf16", torch.device("cpu"), 1)
    assert not torch.distributed.is_initialized()


def test_trainers_of_two_precisions_in_one_process(tmp_path: Path) -> None:
    assert [quick(tmp_path, bf16=bf16).accelerator.state.mixed_precision for bf16 in (True, False)] == ["bf16", "no"]


def test_where_no_real_accelerator_can_be_made_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(**_: Any) -> None:
        raise ValueError("not on this card")

    monkeypatch.setattr("accelerate.Accelerator", refuses)
    with pytest.raises(NotServedError, match=r"state is answered by a real .* for fp16 on cpu: not on this card"):
        _ = quick(tmp_path, fp16=True).accelerator.state


def test_without_the_package_its_name_is_given(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    from surestep import optional
    from surestep.errors import MissingPackageError

    monkeypatch.setattr(optional, "installed", lambda module: module != "accelerate")
    with pytest.raises(MissingPackageError, match=r"accelerator\.state needs the package 'accelerate'"):
        _ = trainer.accelerator.state


def test_a_subclass_of_somebody_else_finds_the_state_of_the_process(tmp_path: Path) -> None:
    class Theirs(Trainer):
        """What a library writes: it calls functions of accelerate that look for its state."""

    quick(tmp_path, bf16=True)
    assert not AcceleratorState._shared_state
    quick(tmp_path, Theirs, bf16=True)
    assert AcceleratorState().mixed_precision == "bf16"


def test_a_subclass_is_made_where_no_real_accelerator_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(**_: Any) -> None:
        raise ValueError("not on this card")

    monkeypatch.setattr("accelerate.Accelerator", refuses)
    quick(tmp_path, type("Theirs", (Trainer,), {}), max_steps=1).train()


def test_over_several_processes_the_real_accelerator_reduces_and_pads(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = trainer.accelerator
    monkeypatch.setattr(type(view), "num_processes", 2)
    view._real = SimpleNamespace(reduce=lambda *given: given, pad_across_processes=lambda *given: given)

    assert view.reduce("a", reduction="mean") == ("a", "mean", 1.0)
    assert view.pad_across_processes("a", dim=1, pad_index=-100) == ("a", 1, -100, False)
    with pytest.raises(NotServedError, match="unscale_gradients"):
        view.unscale_gradients(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1))
