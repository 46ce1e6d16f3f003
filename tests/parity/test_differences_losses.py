"""What becomes of a loss otherwise than in the original, on purpose: both sides."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers.trainer_pt_utils import LabelSmoother

import surestep
from surestep.losses.smoothing import LabelSmoother as OurSmoother
from tests.parity.differences import shows
from tests.parity.harness import run
from tests.parity.models import CountingTagger, Documents, Sentences, Tagger, pad
from tests.parity.one_step import ONE_STEP, aligned, loss_and_norm
from tests.parity.tiny import llama

SIDES = [transformers, surestep]
ROWS: dict[str, Any] = {"train": lambda: list(Sentences())[:8], "data_collator": pad}


def first_log(side: Any, batch: int, **options: Any) -> list[float]:
    return loss_and_norm(side, batch, **{**ROWS, "model": lambda: Tagger(dropout=0.0), **options})


def mean(outputs: Any, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs["logits"].flatten(0, 1), labels.flatten())


def ignores(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    return mean(outputs, labels)


class Ignores:
    """An override that takes the count and ignores it."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        return (mean(outputs, labels), outputs) if return_outputs else mean(outputs, labels)


class Scaled:
    loss_is_scaled_for_ga = True


@shows("S1")
def test_an_item_count_that_is_ignored_divides_nothing() -> None:
    override = {"mixin": Ignores, "model": lambda: CountingTagger(dropout=0.0)}
    for options in ({"compute_loss_func": ignores}, override):
        whole = first_log(transformers, 8, **options)
        # Of sentences of different lengths, the mean of means is near the mean.
        near = pytest.approx(whole, rel=0.1)
        four_times = pytest.approx([4 * value for value in whole], rel=0.1)
        assert first_log(surestep, 8, **options) == whole
        assert first_log(transformers, 2, **options) == four_times
        assert first_log(surestep, 2, **options) == near

    theirs = first_log(transformers, 2, compute_loss_func=ignores)
    assert first_log(surestep, 2, compute_loss_func=ignores, mixin=Scaled) == pytest.approx(theirs, rel=1e-6)


@shows("S2")
def test_a_loss_function_that_takes_no_count_gives_a_mean() -> None:
    with pytest.raises(TypeError, match="num_items_in_batch"):
        first_log(transformers, 2, compute_loss_func=mean)

    assert first_log(surestep, 2, compute_loss_func=mean) == first_log(surestep, 2, compute_loss_func=ignores)


class CountsNothing:
    """Counts as the original does."""

    def _get_num_items_in_batch(self, batch_samples: Any, device: Any) -> Any:
        count = super()._get_num_items_in_batch(batch_samples, device)  # type: ignore[misc]
        return count if any((batch["labels"] != -100).any() for batch in batch_samples) else 0 * count


@shows("S3")
def test_a_step_in_which_nothing_counts_changes_nothing() -> None:
    def silent() -> Any:
        return [{**sample, "labels": torch.full_like(sample["labels"], -100)} for sample in list(Sentences())[:8]]

    arguments = {**ONE_STEP, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    options = {**ROWS, "model": lambda: CountingTagger(dropout=0.0), "train": silent}

    assert all(map(math.isnan, run(transformers, arguments, **options).losses))
    ours = run(surestep, arguments, **options)
    assert [*ours.losses, ours.logs[0]["loss"], ours.logs[0]["grad_norm"]] == [0.0] * 4
    ignored = run(surestep, {**arguments, "nonfinite": "ignore"}, **options, mixin=CountsNothing)
    assert all(map(math.isnan, ignored.losses))


class Renamed(transformers.LlamaForCausalLM):
    """A causal model of the user's, under a name of its own."""


def renamed() -> nn.Module:
    model = Renamed(llama().config)
    torch.manual_seed(3)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


@shows("S4")
def test_label_smoothing_shifts_where_the_loss_does() -> None:
    rows = list(Documents())[:8]
    options = {"train": lambda: rows, "arguments": {"label_smoothing_factor": 0.1}}
    batch = pad(rows)
    with torch.no_grad():
        logits = renamed()(**{name: value for name, value in batch.items() if name != "labels"}).logits
    expected = {
        shifted: nn.functional.cross_entropy(
            logits[:, : -shifted or None].flatten(0, 1), batch["labels"][:, shifted:].flatten(), label_smoothing=0.1
        ).item()
        for shifted in (0, 1)
    }

    assert first_log(transformers, 8, model=renamed, **options)[0] == pytest.approx(expected[0], rel=1e-5)
    assert first_log(surestep, 8, model=renamed, **options)[0] == pytest.approx(expected[1], rel=1e-5)
    assert first_log(surestep, 8, model=aligned(renamed), **options)[0] == pytest.approx(expected[0], rel=1e-5)


@shows("S5")
def test_smoothed_sums_of_float64_keep_their_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 10 * torch.randn(64, 50, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 50, (64,), generator=generator)
    exact = nn.functional.cross_entropy(logits, labels, label_smoothing=0.3).item()
    theirs, ours = (side(0.3)({"logits": logits}, labels).item() for side in (LabelSmoother, OurSmoother))

    assert ours == pytest.approx(exact, rel=1e-14)
    assert abs(theirs - exact) > 1e-10 * exact
    rounded = OurSmoother(0.3)({"logits": logits.float()}, labels)
    assert rounded.item() == LabelSmoother(0.3)({"logits": logits.float()}, labels).item()
