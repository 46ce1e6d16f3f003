"""The members of the accelerator that subclasses ask for, and the refusal of the others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from tests.small import line, quick
from torch import nn

from surestep import Trainer
from surestep.errors import NotServedError

# What the census of subclasses found in use, most used first.
USED = (
    "gather_for_metrics", "device", "gather", "unwrap_model", "is_main_process", "prepare_model", "prepare",
    "num_processes", "reduce", "process_index", "local_process_index", "is_local_main_process", "backward",
    "clip_grad_norm_", "wait_for_everyone", "pad_across_processes", "no_sync", "autocast", "mixed_precision",
    "gradient_accumulation_steps",
)  # fmt: skip


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return quick(tmp_path, gradient_accumulation_steps=3)


def test_everything_in_use_is_there(trainer: Trainer) -> None:
    for name in USED:
        assert hasattr(Accelerator, name)
        getattr(trainer.accelerator, name)


def test_one_process_on_one_device(trainer: Trainer) -> None:
    view = trainer.accelerator

    assert view.device == torch.device("cpu")
    assert (view.num_processes, view.process_index, view.local_process_index) == (1, 0, 0)
    assert view.is_main_process
    assert view.is_local_main_process
    assert view.gradient_accumulation_steps == 3
    assert view.mixed_precision == "no"
    view.wait_for_everyone()


def test_what_one_process_gathers_is_what_it_has(trainer: Trainer) -> None:
    view, value = trainer.accelerator, torch.tensor([1.0, 2.0])

    assert view.gather(value) is value
    assert view.gather_for_metrics((value, value))[1] is value
    assert view.pad_across_processes(value, dim=1, pad_index=-100) is value
    assert view.reduce(value).tolist() == [1.0, 2.0]
    assert view.reduce(value, reduction="mean", scale=0.5).tolist() == [0.5, 1.0]


def test_objects_come_back_prepared(trainer: Trainer) -> None:
    view, model = trainer.accelerator, nn.Linear(1, 1)

    assert view.prepare(model) is model
    assert view.prepare(model, "loader") == (model, "loader")
    assert view.prepare_model(model, evaluation_mode=True) is model
    assert view.unwrap_model(model, keep_fp32_wrapper=True) is model
    assert view.unwrap_model(torch.compile(model, backend="eager")) is model


def test_backward_and_clipping(trainer: Trainer) -> None:
    view, model = trainer.accelerator, nn.Linear(2, 1, bias=False)
    view.backward(model(torch.tensor([[3.0, 4.0]])).sum())

    assert view.clip_grad_norm_(model.parameters(), 1.0).item() == 5.0
    assert model.weight.grad.norm().item() == pytest.approx(1.0, rel=1e-5)


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


@pytest.mark.parametrize(
    ("precision", "dtype"), [({}, None), ({"bf16": True}, torch.bfloat16), ({"fp16": True}, torch.float16)]
)
def test_autocast_for_code_outside_the_model(
    tmp_path: Path, precision: dict[str, bool], dtype: torch.dtype | None
) -> None:
    view = quick(tmp_path, **precision).accelerator
    with view.autocast():
        assert torch.is_autocast_enabled("cpu") is (dtype is not None)
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (dtype or torch.float32)


def test_no_sync_is_a_context(trainer: Trainer) -> None:
    with trainer.accelerator.no_sync(trainer.model):
        pass


def test_any_other_member_is_refused_by_name(trainer: Trainer) -> None:
    with pytest.raises(
        NotServedError, match=r"trainer\.accelerator\.deepspeed_engine is not served yet.*trainer\.engine"
    ):
        _ = trainer.accelerator.deepspeed_engine


def test_python_may_ask_for_its_own_names(trainer: Trainer) -> None:
    assert not hasattr(trainer.accelerator, "__deepcopy__")
