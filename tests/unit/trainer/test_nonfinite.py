"""What follows a step that is not finite: each policy against loops written by hand, bit for bit."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.small import quick
from tests.unit.trainer.spoiled import (
    Deep,
    Numbered,
    at,
    by_hand,
    groups_of,
    infinite,
    losses_of,
    same,
    steep,
    training,
    undone,
    weights,
)
from torch import Tensor, nn

from surestep import Trainer
from surestep.errors import ArgumentError, NonFiniteError
from surestep.trainer.nonfinite import LIMIT

# Stop


@pytest.mark.parametrize(
    ("model", "data", "says"),
    [
        (Deep(), Numbered(bad=(9,)), ["the loss is nan in micro-batch 1 of 1", "'first' (Linear), from inputs that"]),
        (
            Deep(),
            Numbered(bad=(9,), value=math.inf),
            ["norm of the gradients is nan", "'first' (Linear), from inputs that were not"],
        ),
        (Deep(at(9, infinite)), Numbered(), ["the loss is inf", "'the model' (Deep), from finite inputs"]),
        (Deep(at(9, steep)), Numbered(), ["norm of the gradients is nan", "of these weights is not: first.weight"]),
        (
            Deep(at(9, undone)),
            Numbered(),
            ["the loss is nan", "'last' (Linear)", "weight not finite", "resume from"],
        ),
    ],
)
def test_the_error_says_where_and_why(tmp_path: Path, model: nn.Module, data: Any, says: list[str]) -> None:
    with pytest.raises(NonFiniteError) as caught:
        training(tmp_path, "stop", model=model, train_dataset=data).train()

    error, text = caught.value, str(caught.value)
    assert (error.step, error.epoch, error.micro_batch, error.samples) == (3, 0.4, 1, [8, 9, 10, 11])
    assert text.startswith("Step 3 (epoch 0.40): ")
    for words in [
        *says,
        "those after step 2",
        "dataset: 8, 9, 10, 11",
        "by 'number': 8, 9, 10, 11",
        'nonfinite="skip"',
    ]:
        assert words in text


def test_the_error_names_the_micro_batch_of_a_shuffled_epoch(tmp_path: Path) -> None:
    settings = {"train_sampling_strategy": "random", "gradient_accumulation_steps": 3, "num_train_epochs": 3}
    seen: list[list[int]] = []

    def late(model: Any, loss: Tensor, number: Tensor) -> Tensor:
        seen.append(number.tolist())
        return loss * (math.nan if len(seen) == 7 else 1.0)

    with pytest.raises(NonFiniteError, match="in micro-batch 2 of 3") as caught:
        training(tmp_path, "stop", model=Deep(late), **settings).train()

    # The fourth step is the second of the second epoch; it was looked for in further runs.
    assert caught.value.samples == seen[6]
    assert (caught.value.step, caught.value.micro_batch, caught.value.epoch) == (3, 2, 1.0)


def test_nothing_has_changed_when_it_stops(tmp_path: Path) -> None:
    settings = {"model": Deep(statistics=True), "train_dataset": Numbered(bad=(9,))}
    trainer = training(tmp_path, "stop", optim="adamw_torch_fused", **settings)
    with pytest.raises(NonFiniteError):
        trainer.train()

    expected = by_hand(Deep(statistics=True), Numbered(), groups_of(4, 1), set(range(2, 10)))
    assert same(weights(trainer.model), expected)
    assert trainer.state.global_step == 2
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    assert trainer.optimizer.state_dict()["state"][0]["step"] == 2
    assert trainer.lr_scheduler.last_epoch == 2


def test_what_is_saved_after_a_stop_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    data = Numbered(bad=(9,))
    broken = training(tmp_path, "stop", model=Deep(dropout=0.5, statistics=True), train_dataset=data)
    with pytest.raises(NonFiniteError):
        broken.train()
    broken._commit_checkpoint(broken.model, None)
    mended = training(tmp_path, "stop", model=Deep(dropout=0.5, statistics=True))
    mended.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    whole = training(tmp_path / "whole", "stop", model=Deep(dropout=0.5, statistics=True))
    whole.train()

    assert same(weights(mended.model), weights(whole.model))
    assert losses_of(mended) == losses_of(whole)


def test_the_module_is_found_with_the_numbers_that_dropout_drew(tmp_path: Path) -> None:
    class Chancy(Deep):
        """Divides by what dropout leaves: infinite only where it leaves nothing of a row."""

        def forward(self, x: Tensor, labels: Tensor, number: Tensor) -> dict[str, Tensor]:
            kept = self.dropout(torch.ones(len(x), 5)).sum(1, keepdim=True)
            return {"loss": nn.functional.mse_loss(self.last(self.first(x) / kept), labels)}

    with pytest.raises(NonFiniteError, match=r"'last' \(Linear\), from inputs that were not finite"):
        training(tmp_path, "stop", model=Chancy(dropout=0.5), num_train_epochs=50).train()


def test_a_search_that_fails_hides_nothing(tmp_path: Path) -> None:
    class Once(Deep):
        broken = False

        def forward(self, x: Tensor, labels: Tensor, number: Tensor) -> dict[str, Tensor]:
            assert not self.broken, "not again"
            outputs = super().forward(x, labels, number)
            self.broken = bool((number == 9).any())
            return {**outputs, "loss": outputs["loss"] * math.nan} if self.broken else outputs

    with pytest.raises(NonFiniteError, match="nan in micro-batch 1 of 1") as caught:
        training(tmp_path, "stop", model=Once()).train()

    assert "AssertionError: not again" in str(caught.value)


def test_a_cause_that_does_not_come_again_is_said(tmp_path: Path) -> None:
    calls: list[int] = []

    def once(model: Any, loss: Tensor, number: Tensor) -> Tensor:
        calls.append(1)
        return loss * (math.nan if len(calls) == 2 else 1.0)

    with pytest.raises(NonFiniteError, match="run again, and gave finite outputs") as caught:
        training(tmp_path, "stop", model=Deep(once)).train()

    assert caught.value.samples == [4, 5, 6, 7]


def test_an_order_of_a_sampler_that_is_not_ours_is_not_told(tmp_path: Path) -> None:
    class Own(Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return torch.utils.data.SubsetRandomSampler(range(20))

    with pytest.raises(NonFiniteError) as caught:
        training(tmp_path, "stop", kind=Own, train_dataset=Numbered(bad=(9,))).train()

    assert caught.value.samples is None
    assert "by 'number'" in str(caught.value)


@pytest.mark.parametrize("settings", [{"max_grad_norm": 0}, {"max_grad_value": 1.0}, {"adaptive_clip_ratio": 0.1}])
def test_every_kind_of_clipping_is_looked_at(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(NonFiniteError, match="Step 3"):
        training(tmp_path, "stop", model=Deep(at(9, steep)), **settings).train()


# Skip


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused"])
@pytest.mark.parametrize(
    ("spoils", "bad"), [(None, (9,)), (at(9, infinite), ()), (at(9, steep), ())], ids=["input", "loss", "gradient"]
)
def test_a_skipped_step_is_as_if_it_had_not_been(tmp_path: Path, spoils: Any, bad: Any, optim: str) -> None:
    trainer = training(tmp_path, "skip", model=Deep(spoils), train_dataset=Numbered(bad), optim=optim)
    trainer.train()
    expected = by_hand(Deep(), Numbered(), groups_of(4, 1), {2, 7})

    if optim == "adamw_torch_fused":
        assert same(weights(trainer.model), expected)
    for one, other in zip(weights(trainer.model), expected, strict=True):
        torch.testing.assert_close(one, other)
    assert trainer.state.global_step == 10
    assert trainer.lr_scheduler.last_epoch == 8


def test_a_bad_micro_batch_takes_its_whole_step_along(tmp_path: Path) -> None:
    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3, "optim": "adamw_torch_fused"}
    trainer = training(tmp_path, "skip", train_dataset=Numbered((9,)), **settings)
    trainer.train()

    # Samples 8 and 9 are the second micro-batch of the second step of four in an epoch.
    assert same(weights(trainer.model), by_hand(Deep(), Numbered(), groups_of(2, 3), {1, 5}))


def test_running_statistics_are_those_from_before(tmp_path: Path) -> None:
    settings = {"model": Deep(statistics=True), "train_dataset": Numbered((9,)), "optim": "adamw_torch_fused"}
    trainer = training(tmp_path, "skip", **settings)
    trainer.train()

    assert same(weights(trainer.model), by_hand(Deep(statistics=True), Numbered(), groups_of(4, 1), {2, 7}))


def test_skipped_steps_are_counted_and_in_no_mean(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = training(tmp_path, "skip", train_dataset=Numbered((9,)), logging_steps=5)
    whole = training(tmp_path / "each", "skip", train_dataset=Numbered((9,)))
    caplog.set_level(logging.WARNING, "surestep")
    result = trainer.train()
    each = whole.train()

    logs, single = trainer.state.log_history, losses_of(whole)
    assert [entry["nonfinite_steps"] for entry in logs if "loss" in entry] == [1, 2]
    assert [math.isnan(loss) for loss in single] == [step in {2, 7} for step in range(10)]
    finite = [loss for loss in single if not math.isnan(loss)]
    assert losses_of(trainer) == pytest.approx([sum(finite[:4]) / 4, sum(finite[4:]) / 4], rel=1e-6)
    assert result.training_loss == pytest.approx(sum(finite) / 8, rel=1e-6)
    assert each.training_loss == pytest.approx(result.training_loss, rel=1e-6)
    assert "Step 3 (epoch 0.40) is not finite, it is left out: the loss is nan in micro-batch 1 of 1." in caplog.text
    assert "Samples of the step: 8, 9, 10, 11." in caplog.text


@pytest.mark.parametrize("step", [2, 3, 4, 7])
def test_a_resume_about_a_skipped_step_is_exact(tmp_path: Path, step: int) -> None:
    def run(folder: Path, resume: Any = None) -> Trainer:
        model = Deep(dropout=0.5, statistics=True)
        settings = {"save_strategy": "steps", "save_steps": 1, "logging_steps": 3}
        trainer = training(folder, "skip", model=model, train_dataset=Numbered((9,)), **settings)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    whole = run(tmp_path)
    later = run(tmp_path / "later", str(tmp_path / f"checkpoint-{step}"))

    assert same(weights(later.model), weights(whole.model))
    kept = ("loss", "nonfinite_steps", "train_loss", "step")
    logs = [[{name: one[name] for name in kept if name in one} for one in t.state.log_history] for t in (later, whole)]
    assert str(logs[0]) == str(logs[1])


def test_a_row_of_skipped_steps_ends_the_run(tmp_path: Path) -> None:
    trainer = training(tmp_path, "skip", model=Deep(at(9, undone)), num_train_epochs=10)
    with pytest.raises(NonFiniteError, match=f"the last of {LIMIT + 1} in a row"):
        trainer.train()

    assert trainer.state.global_step == 2 + LIMIT


# Whatever the policy


@pytest.mark.parametrize("policy", ["stop", "skip", "ignore"])
def test_a_finite_run_is_the_same_under_every_policy(tmp_path: Path, policy: str) -> None:
    settings = {"optim": "adamw_torch_fused", "per_device_train_batch_size": 2, "gradient_accumulation_steps": 3}
    trainer = training(tmp_path, policy, **settings)
    trainer.train()

    assert same(weights(trainer.model), by_hand(Deep(), Numbered(), groups_of(2, 3), set()))
    assert not any("nonfinite_steps" in entry for entry in trainer.state.log_history)


def test_the_state_file_has_no_key_of_ours(tmp_path: Path) -> None:
    trainer = training(tmp_path, "skip", train_dataset=Numbered((9,)), save_strategy="epoch")
    trainer.train()
    written = json.loads((tmp_path / "checkpoint-5" / "trainer_state.json").read_text())

    assert set(written) == {field.name for field in dataclasses.fields(transformers.TrainerState)}


def test_what_overflows_in_float16_is_left_to_the_loss_scale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = training(tmp_path, "stop", model=Deep(at(9, undone)), fp16=True, num_train_epochs=8)
    caplog.set_level(logging.WARNING, "surestep")
    trainer.train()

    assert trainer.state.global_step == 40
    assert caplog.text.count("20 steps in a row have overflowed in float16") == 1


def test_a_word_that_is_no_policy_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"nonfinite='skipp'.*stop, skip"):
        quick(Path("unused"), nonfinite="skipp")


def test_the_error_can_be_sent_to_another_process() -> None:
    error = NonFiniteError("text", step=3, epoch=0.5, samples=[1])
    other = pickle.loads(pickle.dumps(error))

    assert (str(other), other.step, other.epoch, other.samples) == ("text", 3, 0.5, [1])
