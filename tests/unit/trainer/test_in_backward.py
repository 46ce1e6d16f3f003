"""Optimizers that update during backward: trained, resumed, and told apart where they cannot do what is asked.

The packages that bring such optimizers are not installed here; the trainer's part is shown with our own layer-wise
optimizer over SGD, under one of their names.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small import Line, Points

from surestep import Trainer, TrainingArguments
from surestep.errors import ArgumentError, NonFiniteError
from surestep.optim import build
from surestep.optim.layerwise import LayerwiseOptimizer
from surestep.optim.recipe import Recipe
from surestep.trainer import nonfinite

NAME = "galore_adamw_layerwise"


class OverSGD(LayerwiseOptimizer):
    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr, torch.optim.SGD)


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "RECIPES", {**build.RECIPES, NAME: Recipe(lambda: OverSGD, in_backward=True)})


def arguments(folder: Path, **settings: Any) -> TrainingArguments:
    common = {
        "max_steps": 8,
        "save_steps": 4,
        "logging_steps": 1,
        "learning_rate": 0.1,
        "per_device_train_batch_size": 4,
    }
    return TrainingArguments(
        str(folder), **{**common, "use_cpu": True, "disable_tqdm": True, "optim": NAME, **settings}
    )


def test_the_weights_are_those_of_a_plain_loop_and_no_norm_is_made_up(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Line()
    twin = copy.deepcopy(model)
    trainer = Trainer(model, arguments(tmp_path, train_sampling_strategy="sequential"), train_dataset=Points())
    trainer.train()
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    for step, batch in zip(range(8), [*trainer.get_train_dataloader()] * 2, strict=False):
        optimizer.param_groups[0]["lr"] = 0.1 * (8 - step) / 8
        optimizer.zero_grad()
        twin(**batch)["loss"].backward()
        optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), twin.parameters(), strict=True))
    assert all("grad_norm" not in entry for entry in trainer.state.log_history)


def test_it_resumes_to_the_last_bit(tmp_path: Path) -> None:
    def trained(**call: Any) -> torch.Tensor:
        torch.manual_seed(0)
        trainer = Trainer(Line(), arguments(tmp_path), train_dataset=Points())
        trainer.train(**call)
        return torch.cat([parameter.flatten() for parameter in trainer.model.parameters()])

    straight = trained()
    assert torch.equal(trained(resume_from_checkpoint=str(tmp_path / "checkpoint-4")), straight)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"gradient_accumulation_steps": 2},
            "updates during backward, and gradient_accumulation_steps is 2. Set it to 1",
        ),
        ({"fp16": True}, "updates during backward, before a loss scale.*bf16=True"),
    ],
)
def test_what_it_cannot_do_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Trainer(Line(), arguments(tmp_path, **settings), train_dataset=Points())


def test_no_backward_is_run_from_a_loss_that_is_not_finite(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = Points()
    data.x[9] = torch.nan
    model = Line()
    trainer = Trainer(model, arguments(tmp_path, train_sampling_strategy="sequential"), train_dataset=data)
    with pytest.raises(NonFiniteError, match="Step 3"):
        trainer.train()

    assert model.layer.weight.isfinite().all()
    assert "only the loss of each step is looked at" in caplog.text
    assert "the host waits" not in caplog.text
    skipping = arguments(tmp_path, train_sampling_strategy="sequential", nonfinite="skip")
    trainer = Trainer(Line(), skipping, train_dataset=data)
    trainer.train()
    assert trainer.model.layer.weight.isfinite().all()
    assert trainer.state.global_step == 8


def test_that_the_host_waits_for_every_loss_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nonfinite, "_waits", lambda device: True)
    Trainer(Line(), arguments(tmp_path, max_steps=1), train_dataset=Points()).train()

    said = "nonfinite='stop' reads the loss of each micro-batch before its backward, for which the host waits"
    assert capsys.readouterr().err.count(said) == 1
