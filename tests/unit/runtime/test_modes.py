"""Evaluation mode, and the layers that it would harm."""

from __future__ import annotations

from typing import Any

import torch
from tests.small import Line, Points, arguments
from torch import Tensor, nn

from surestep.losses.items import undisturbed
from surestep.runtime.modes import to_evaluation
from surestep.trainer.trainer import Trainer


class Packs(nn.Linear):
    """Lets no gradient through once it has run in evaluation mode, as 4-bit layers on the CPU do."""

    def __init__(self, ins: int, outs: int) -> None:
        super().__init__(ins, outs)
        self.weight.quant_state = "one"  # type: ignore[attr-defined]
        self.packed = False

    def forward(self, x: Tensor) -> Tensor:
        self.packed |= not self.training
        return super().forward(x.detach() if self.packed else x)


class Model(Line):
    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(3, 3)
        self.quantised = Packs(3, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, labels: Tensor | None = None, **kwargs: Any) -> dict[str, Tensor]:
        return super().forward(self.drop(self.quantised(self.before(x))), labels)


def test_every_layer_is_switched_but_those_that_would_pack() -> None:
    model = Model()
    to_evaluation(model)

    assert [name for name, module in model.named_modules() if module.training] == ["quantised"]


def test_a_look_leaves_modes_as_they_were() -> None:
    model = Model()
    model.drop.eval()
    with undisturbed(model):
        assert not model.training
        assert model.quantised.training

    assert [name for name, module in model.named_modules() if not module.training] == ["drop"]


def test_gradients_flow_after_a_look_and_after_evaluations(tmp_path: Any) -> None:
    torch.manual_seed(0)
    model = Model()
    trainer = Trainer(
        model,
        arguments(tmp_path, eval_on_start=True, eval_strategy="steps", eval_steps=1),
        train_dataset=Points(),
        eval_dataset=Points(),
    )
    before = model.before.weight.detach().clone()
    trainer.evaluate()
    trainer.train()

    assert not model.quantised.packed
    assert not torch.equal(model.before.weight, before)
