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
import torchmetrics
import transformers
from tests.small import Points, quick
from torch import Tensor, nn

from surestep import Trainer, TrainerCallback
from surestep.errors import ArgumentError, NonFiniteError
from surestep.trainer import nonfinite
from surestep.trainer.nonfinite import LIMIT

SEQUENTIAL = {"train_sampling_strategy": "sequential", "logging_steps": 1, "num_train_epochs": 2}


class Numbered(Points):
    """Points that know their number; those in `bad` have an input that is NaN."""

    def __init__(self, bad: tuple[int, ...] = (), value: float = math.nan) -> None:
        super().__init__()
        for number in bad:
            self.x[number, 1] = value

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**super().__getitem__(index), "number": index}


class Deep(nn.Module):
    """Two layers, statistics and, where asked for, dropout; `spoils` changes the loss of the batches that it knows."""

    def __init__(self, spoils: Any = None, *, dropout: float = 0.0, statistics: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 1)
        self.norm = nn.BatchNorm1d(4) if statistics else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.spoils = spoils

    def forward(self, x: Tensor, labels: Tensor, number: Tensor) -> dict[str, Tensor]:
        predicted = self.last(self.dropout(torch.tanh(self.norm(self.first(x)))))
        loss = nn.functional.mse_loss(predicted, labels)
        if self.spoils is not None:
            loss = self.spoils(self, loss, number)
        return {"loss": loss, "logits": predicted}


def at(number: int, change: Any) -> Any:
    """Change the loss of the batch that holds a sample."""
    return lambda model, loss, numbers: change(model, loss) if (numbers == number).any() else loss


def infinite(model: nn.Module, loss: Tensor) -> Tensor:
    """A loss that is infinite, with gradients that are finite."""
    return loss + math.inf


def steep(model: nn.Module, loss: Tensor) -> Tensor:
    """A finite loss with a gradient that is not: that of a square root at 0."""
    return loss + (0 * model.first.weight[0, 0]).sqrt()


def undone(model: nn.Module, loss: Tensor) -> Tensor:
    """A weight that is not finite from here on."""
    with torch.no_grad():
        model.last.weight[0, 2] = math.nan
    return model.last.weight.sum()


def weights(model: nn.Module) -> list[Tensor]:
    return [value.detach().clone() for value in model.state_dict().values()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def by_hand(
    model: nn.Module, data: Any, groups: list[list[list[int]]], left_out: set[int], *, lr: float = 0.05
) -> list[Tensor]:
    """Train with AdamW, clipping and a linear schedule on micro-batches of samples; the steps of `left_out` do not."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / len(groups)))
    model.train()
    for step, group in enumerate(groups):
        if step in left_out:
            continue
        for numbers in group:
            samples = [data[number] for number in numbers]
            batch = {name: torch.stack([torch.as_tensor(one[name]) for one in samples]) for name in samples[0]}
            (model(**batch)["loss"] / len(group)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return weights(model)


def groups_of(micro: int, accumulation: int, epochs: int = 2) -> list[list[list[int]]]:
    batches = [list(range(start, start + micro)) for start in range(0, 20, micro)]
    return [batches[start : start + accumulation] for start in range(0, len(batches), accumulation)] * epochs


def losses_of(trainer: Trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def training(folder: Path, policy: str, **settings: Any) -> Trainer:
    usual = {**SEQUENTIAL, "nonfinite": policy, "learning_rate": 0.05, "train_dataset": Numbered(), "model": Deep()}
    return quick(folder, **{**usual, **settings})


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


# Read one step late, as on an accelerator


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the host run ahead, as if there were an accelerator; fused optimizers leave steps out on the CPU as well."""
    monkeypatch.setattr(nonfinite, "_runs_ahead", lambda device: True)


FUSED = {"optim": "adamw_torch_fused"}
KINDS = [(None, (9,)), (at(9, infinite), ()), (at(9, steep), ())]


def history(trainer: Trainer) -> str:
    """What was logged, but for times; as text, where NaN equals NaN."""
    kept = ("loss", "grad_norm", "learning_rate", "nonfinite_steps", "train_loss", "step", "epoch")
    return str([{name: one[name] for name in kept if name in one} for one in trainer.state.log_history])


@pytest.mark.parametrize("logging_steps", [1, 2, 3, 7])
@pytest.mark.parametrize(("spoils", "bad"), KINDS, ids=["input", "loss", "gradient"])
def test_skipping_late_comes_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoils: Any, bad: Any, logging_steps: int
) -> None:
    def run(folder: Path) -> Trainer:
        model = Deep(spoils, dropout=0.5, statistics=True)
        settings = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "save_strategy": "epoch"}
        settings |= {"logging_steps": logging_steps, **FUSED}
        trainer = training(folder, "skip", model=model, train_dataset=Numbered(bad), **settings)
        trainer.train()
        return trainer

    early = run(tmp_path / "early")
    monkeypatch.setattr(nonfinite, "_runs_ahead", lambda device: True)
    later = run(tmp_path / "late")

    assert same(weights(later.model), weights(early.model))
    assert history(later) == history(early)
    assert later.lr_scheduler.state_dict() == early.lr_scheduler.state_dict()
    assert same(tensors(later), tensors(early))


def tensors(trainer: Trainer) -> list[Tensor]:
    return [value for state in trainer.optimizer.state_dict()["state"].values() for value in state.values()]


@pytest.mark.filterwarnings("ignore:Metric .* will save all targets")
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("spoils", "bad"), KINDS, ids=["input", "loss", "gradient"])
def test_training_metrics_do_not_know_of_a_skipped_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoils: Any, bad: Any, late: bool
) -> None:
    monkeypatch.setattr(nonfinite, "_runs_ahead", lambda device: late)
    asked = {
        "sums": "mse",
        "states": torchmetrics.MeanSquaredError(),
        # Keeps lists of predictions.
        "lists": torchmetrics.SpearmanCorrCoef(),
    }
    settings = {"logging_steps": 5, "learning_rate": 0.0, "per_device_train_batch_size": 2, **FUSED}
    trainer = training(
        tmp_path,
        "skip",
        model=Deep(spoils),
        train_dataset=Numbered(bad),
        train_metrics=asked,
        gradient_accumulation_steps=2,
        **settings,
    )
    trainer.train()

    kept = [Numbered()[number] for number in range(20) if number not in {8, 9, 10, 11}]
    x, labels = (torch.stack([sample[name] for sample in kept]) for name in ("x", "labels"))
    predicted = Deep()(x, labels, torch.zeros(1))["logits"].detach()
    error = float((predicted - labels).square().mean())
    rank = float(torchmetrics.functional.spearman_corrcoef(predicted.squeeze(1), labels.squeeze(1)))
    for entry in (entry for entry in trainer.state.log_history if "loss" in entry):
        assert [entry["sums"], entry["states"], entry["lists"]] == pytest.approx([error, error, rank], rel=1e-5)


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize("logging_steps", [1, 50])
@pytest.mark.parametrize(("spoils", "bad"), KINDS, ids=["input", "loss", "gradient"])
def test_stopping_late_leaves_what_was_before(tmp_path: Path, spoils: Any, bad: Any, logging_steps: int) -> None:
    model = Deep(spoils, statistics=True)
    settings = {"logging_steps": logging_steps, "include_num_input_tokens_seen": "all", **FUSED}
    model.main_input_name = "x"
    trainer = training(tmp_path, "stop", model=model, train_dataset=Numbered(bad), **settings)
    with pytest.raises(NonFiniteError) as caught:
        trainer.train()
    expected = by_hand(Deep(statistics=True), Numbered(), groups_of(4, 1), set(range(2, 10)))

    assert (caught.value.step, caught.value.samples) == (3, [8, 9, 10, 11])
    assert same(weights(trainer.model), expected)
    assert trainer.optimizer.state_dict()["state"][0]["step"] == 2
    assert (trainer.state.global_step, trainer.state.epoch, trainer.lr_scheduler.last_epoch) == (2, 0.4, 2)
    assert (trainer._run.stretch.done, trainer._run.position.samples) == (2, 8)
    assert trainer.state.num_input_tokens_seen == 2 * 12


@pytest.mark.usefixtures("late")
def test_what_is_saved_after_a_late_stop_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    settings = {"logging_steps": 50, **FUSED}
    broken = training(
        tmp_path, "stop", model=Deep(dropout=0.5, statistics=True), train_dataset=Numbered((9,)), **settings
    )
    with pytest.raises(NonFiniteError):
        broken.train()
    broken._commit_checkpoint(broken.model, None)
    mended = training(tmp_path, "stop", model=Deep(dropout=0.5, statistics=True), **settings)
    mended.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    whole = training(tmp_path / "whole", "stop", model=Deep(dropout=0.5, statistics=True), **settings)
    whole.train()

    assert same(weights(mended.model), weights(whole.model))
    assert mended.train_output.training_loss == whole.train_output.training_loss


@pytest.mark.usefixtures("late")
def test_a_failure_in_the_last_step_is_not_lost(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="Step 5"):
        training(tmp_path, "stop", train_dataset=Numbered((19,)), logging_steps=50, num_train_epochs=1, **FUSED).train()


@pytest.mark.usefixtures("late")
def test_an_optimizer_that_cannot_leave_a_step_out_is_read_every_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = training(tmp_path, "skip", train_dataset=Numbered((9,)), optim="rmsprop", logging_steps=50)
    caplog.set_level(logging.WARNING, "surestep")
    trainer.train()

    assert "RMSprop cannot leave a step out on the device" in caplog.text
    assert all(weight.isfinite().all() for weight in weights(trainer.model))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, ["nonfinite='skip' reads the loss and the norm of the gradients at every step"]),
        ({"fp16": True}, ["fp16=True reads whether the gradients overflowed at every step"]),
        ({"nonfinite": "ignore"}, []),
    ],
)
def test_what_is_read_every_step_is_said_at_the_start(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    says: list[str],
) -> None:
    monkeypatch.setattr(nonfinite, "_waits", lambda device: True)
    training(tmp_path, "skip", **{"max_steps": 3, **settings}).train()

    waiting = [line for line in capsys.readouterr().err.splitlines() if "the host waits" in line]
    assert len(waiting) == len(says)
    for line, start in zip(waiting, says, strict=True):
        assert line.startswith(f"INFO surestep: {start}")
        assert "(cpu)" in line


@pytest.mark.parametrize(
    ("kind", "waits", "ahead"),
    [("cpu", False, False), ("mps", True, False), ("xpu", True, False), ("cuda", True, True)],
)
def test_the_host_waits_for_every_device_but_itself(kind: str, waits: bool, ahead: bool) -> None:
    device = torch.device(kind)

    assert (nonfinite._waits(device), nonfinite._runs_ahead(device)) == (waits, ahead)


@pytest.mark.usefixtures("late")
def test_the_loss_scale_is_told_of_late_as_well(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = training(tmp_path, "stop", model=Deep(at(9, undone)), fp16=True, num_train_epochs=8, **FUSED)
    caplog.set_level(logging.WARNING, "surestep")
    trainer.train()

    assert trainer.state.global_step == 40
    assert caplog.text.count("20 steps in a row have overflowed in float16") == 1


# Rewind


def only(number: int) -> Any:
    """Spoil the loss of one forward, counted from 1."""
    seen: list[int] = []

    def spoil(module: Any, loss: Tensor, numbers: Tensor) -> Tensor:
        seen.append(1)
        return loss * (math.nan if len(seen) == number else 1.0)

    return spoil


def from_the(number: int) -> Any:
    """Spoil every loss from a forward on, whatever is put back."""
    seen: list[int] = []

    def spoil(module: Any, loss: Tensor, numbers: Tensor) -> Tensor:
        seen.append(1)
        return loss * (math.nan if len(seen) >= number else 1.0)

    return spoil


def rewinding(folder: Path, *, bad: tuple[int, ...] = (9,), save_steps: int = 2, **settings: Any) -> Trainer:
    """Train with dropout and statistics, whose draws a rewind takes back too."""
    usual = {"save_strategy": "steps", "save_steps": save_steps, "model": Deep(dropout=0.5, statistics=True), **FUSED}
    return training(folder, "rewind", train_dataset=Numbered(bad), **{**usual, **settings})


def without(*steps: int) -> list[Tensor]:
    """Return the weights of a run by hand whose steps, counted from 0, do not draw, update or turn the schedule."""
    model = Deep(dropout=0.5, statistics=True)
    torch.manual_seed(42)

    class Drawing(Numbered):
        """The loader draws at the beginning of each epoch, for its workers."""

        def __getitem__(self, index: int) -> dict[str, Any]:
            if index == 0:
                torch.empty((), dtype=torch.int64).random_()
            return super().__getitem__(index)

    return by_hand(model, Drawing(), groups_of(4, 1), set(steps))


@pytest.mark.parametrize("reading", ["now", "late"])
@pytest.mark.parametrize("save_steps", [1, 2, 5])
@pytest.mark.parametrize("logging_steps", [1, 3])
def test_a_rewound_run_is_one_that_never_had_these_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_steps: int, logging_steps: int, reading: str
) -> None:
    monkeypatch.setattr(nonfinite, "_runs_ahead", lambda device: reading == "late")
    # The first checkpoint comes before the failure.
    bad, left = ((), {7}) if save_steps == 5 else ((9,), {2, 7})
    model = Deep(only(8) if save_steps == 5 else None, dropout=0.5, statistics=True)
    trainer = rewinding(tmp_path, bad=bad, save_steps=save_steps, model=model, logging_steps=logging_steps)
    trainer.train()

    assert trainer.state.global_step == 10
    assert trainer.lr_scheduler.last_epoch == 10 - len(left)
    assert trainer._run.left_out.steps == len(left)
    assert same(weights(trainer.model), without(*left))


@pytest.mark.parametrize("step", [2, 4, 6, 8])
def test_a_resume_of_a_rewound_run_is_exact(tmp_path: Path, step: int) -> None:
    whole = rewinding(tmp_path)
    whole.train()
    later = rewinding(tmp_path / "later")
    later.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))

    assert same(weights(later.model), weights(whole.model))
    assert history(later) == history(whole)


def test_what_was_left_out_is_not_tried_again_after_a_resume(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rewinding(tmp_path, num_train_epochs=1).train()
    caplog.clear()
    later = rewinding(tmp_path / "later", num_train_epochs=1)
    later.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))

    assert later._run.left_out.places == {(0, 8)}
    assert "not finite" not in caplog.text


def test_a_rewind_may_cross_epochs(tmp_path: Path) -> None:
    epochs: list[float] = []

    class Notes(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            epochs.append(state.epoch)

        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            epochs.append(-state.epoch)

    model = Deep(only(8), dropout=0.5, statistics=True)
    trainer = rewinding(tmp_path, bad=(), model=model, save_steps=4, callbacks=[Notes()])
    trainer.train()

    assert same(weights(trainer.model), without(7))
    assert epochs == [0, -1.0, 1.0, 0.8, -1.0, 1.0, -2.0]
    assert [entry["step"] for entry in trainer.state.log_history] == [*range(1, 11), 10]


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="no checkpoint of this run to go back to"):
        rewinding(tmp_path, save_steps=4).train()


def test_what_another_run_saved_is_not_gone_back_to(tmp_path: Path) -> None:
    rewinding(tmp_path, bad=(), save_steps=2).train()
    with pytest.raises(NonFiniteError, match="no checkpoint of this run"):
        rewinding(tmp_path, bad=(1,)).train()


def test_a_resumed_run_may_go_back_to_what_it_began_with(tmp_path: Path) -> None:
    rewinding(tmp_path, bad=()).train()
    later = rewinding(tmp_path, save_steps=100)
    later.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))

    assert later._run.left_out.steps == 2
    assert all(weight.isfinite().all() for weight in weights(later.model))


def test_a_run_that_goes_back_for_ever_stops(tmp_path: Path) -> None:
    trainer = rewinding(tmp_path, bad=(), model=Deep(from_the(5)), num_train_epochs=30, save_steps=4)
    with pytest.raises(NonFiniteError, match=f"gone back {LIMIT} times for steps that follow each other"):
        trainer.train()


@pytest.mark.parametrize("settings", [{"save_strategy": "no"}, {"save_strategy": "epoch", "save_only_model": True}])
def test_a_rewind_wants_checkpoints(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match='nonfinite="rewind" goes back to a checkpoint'):
        training(tmp_path, "rewind", **settings)


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
