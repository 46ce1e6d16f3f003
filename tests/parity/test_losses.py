"""The loss of a step: accumulation, smoothing, item counts, overrides, precision, noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.parity.harness import Case, Seen, as_parameters, check
from tests.parity.models import CountingTagger, LossFreeNet, Net, Points, Sentences, Tagger, TupleNet, pad

BASE = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "logging_steps": 1, "learning_rate": 1e-2}
ACCUMULATED = {**BASE, "gradient_accumulation_steps": 3}
WHOLE = {**ACCUMULATED, "remove_unused_columns": False}
TAGS = {"model": Tagger, "train": Sentences, "data_collator": pad}


class MeanLoss:
    """An override that gives a mean over the micro-batch, and says so."""

    loss_is_scaled_for_ga = False

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = nn.functional.smooth_l1_loss(outputs["logits"], labels)
        return (loss, outputs) if return_outputs else loss


class SilentMeanLoss(MeanLoss):
    """The same, without saying so: the model's signature decides."""

    loss_is_scaled_for_ga = None


class ScaledLoss(MeanLoss):
    """An override whose loss is already divided over the step."""

    loss_is_scaled_for_ga = True


class OwnStep:
    """An override of the whole step."""

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        model.train()
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            loss = 2 * self.compute_loss(model, inputs)
        self.accelerator.backward(loss)
        return loss.detach()


def per_item(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    """A loss function of the user's that divides by the items of the step."""
    total = nn.functional.cross_entropy(outputs["logits"].flatten(0, 1), labels.flatten(), reduction="sum")
    return total / num_items_in_batch


def first_losses(seen: Seen) -> float:
    return sum(seen.losses[:3])


CASES = [
    Case("a tuple of outputs", ACCUMULATED, {"model": TupleNet}),
    Case("tokens, mean over each micro-batch", ACCUMULATED, TAGS),
    Case(
        "tokens, divided by the items of the step",
        ACCUMULATED,
        {**TAGS, "model": CountingTagger},
        shows=lambda seen: abs(first_losses(seen) - seen.logs[0]["loss"]) < 1e-6 and seen.losses[0] < 1,
    ),
    Case("tokens, items of one micro-batch", BASE, {**TAGS, "model": CountingTagger}),
    Case("label smoothing", {**BASE, "label_smoothing_factor": 0.2}, TAGS),
    Case("label smoothing with accumulation", {**ACCUMULATED, "label_smoothing_factor": 0.2}, TAGS),
    Case(
        "label smoothing by the items of the step",
        {**ACCUMULATED, "label_smoothing_factor": 0.2},
        {**TAGS, "model": CountingTagger},
    ),
    Case("compute_loss_func with the item count", ACCUMULATED, {**TAGS, "compute_loss_func": per_item}),
    Case("compute_loss overridden, a mean", WHOLE, {"model": LossFreeNet, "mixin": MeanLoss}),
    Case("compute_loss overridden, nothing said", WHOLE, {"model": LossFreeNet, "mixin": SilentMeanLoss}),
    Case("compute_loss overridden, scaled", WHOLE, {"model": LossFreeNet, "mixin": ScaledLoss}),
    Case("training_step overridden", BASE, {"mixin": OwnStep}),
    Case("bfloat16", {**ACCUMULATED, "bf16": True}),
    Case("bfloat16 with evaluation", {**BASE, "bf16": True, "eval_strategy": "epoch"}, {"evaluate": Points}),
    Case("noise on embeddings", {**ACCUMULATED, "neftune_noise_alpha": 5.0}, TAGS),
    Case("a cache emptied every other step", {**BASE, "torch_empty_cache_steps": 2}),
    Case(
        "a model made by model_init",
        BASE,
        {"model_init": lambda: Net(0.1)},
        shows=lambda seen: len(seen.numbers) == 100,
    ),
    Case("another seed", {**BASE, "seed": 11}),
    Case(
        "a seed for the data alone",
        {**BASE, "data_seed": 3},
        shows=lambda seen: seen.numbers[:50] == torch.randperm(50, generator=torch.Generator().manual_seed(3)).tolist(),
    ),
]


@as_parameters(CASES)
def test_losses_equal_the_originals(case: Case) -> None:
    check(case)
