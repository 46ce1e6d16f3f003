"""What the accelerator of a trainer does otherwise than the original's, on purpose: both sides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import surestep
from tests.parity.differences import shows
from tests.parity.harness import run
from tests.parity.models import Points

ACCUMULATING = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 2}


class TwoOptimizers:
    """Trains a temperature beside the model, with an optimizer that it prepares."""

    prepares = True

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        if not hasattr(self, "temperature"):
            self.temperature = torch.nn.Parameter(torch.tensor(1.0))
            own = torch.optim.SGD([self.temperature], lr=0.1)
            self.further: Any = self.accelerator.prepare(own) if self.prepares else own  # type: ignore[attr-defined]
        self.accelerator.backward((self.temperature - 3).square())  # type: ignore[attr-defined]
        if self.prepares or self.accelerator.sync_gradients:  # type: ignore[attr-defined]
            self.further.step()
            self.further.zero_grad()
        return super().training_step(model, inputs, num_items_in_batch)  # type: ignore[misc]


class StepsOnTheLast(TwoOptimizers):
    prepares = False


@shows("T14")
def test_a_further_optimizer_is_stepped_by_whoever_made_it() -> None:
    theirs = run(transformers, ACCUMULATING, mixin=TwoOptimizers)
    with pytest.raises(NotImplementedError, match="prepare_optimizer is not served"):
        run(surestep, ACCUMULATING, mixin=TwoOptimizers)
    ours = run(surestep, ACCUMULATING, mixin=StepsOnTheLast)

    assert torch.equal(ours.trainer.temperature, theirs.trainer.temperature)
    assert ours.losses == theirs.losses


class Gathers:
    """Gathers, with each batch of an evaluation, a tensor of five figures that are no samples."""

    def prediction_step(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        figures = self.accelerator.gather_for_metrics(torch.arange(5))  # type: ignore[attr-defined]
        self.seen = [*getattr(self, "seen", []), len(figures)]
        return super().prediction_step(model, inputs, *rest, **named)  # type: ignore[misc]


@shows("T15")
def test_what_is_gathered_in_the_last_batch_is_not_cut() -> None:
    arguments = {"max_steps": 1, "per_device_eval_batch_size": 4}
    options: dict[str, Any] = {"mixin": Gathers, "evaluate": lambda: Points(10), "drive": lambda one: one.evaluate()}

    assert run(transformers, arguments, **options).trainer.seen == [5, 5, 2]
    assert run(surestep, arguments, **options).trainer.seen == [5, 5, 5]
