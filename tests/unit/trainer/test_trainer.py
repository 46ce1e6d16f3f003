"""The trainer's own part: construction, models, runs one after the other, what a run comes to."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from tests.small import Line, Points, arguments, line, quick
from torch import nn

from surestep import Trainer, TrainingArguments, TrainOutput
from surestep.errors import ArgumentError

# Construction


def test_without_arguments_there_is_a_folder_of_the_originals_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = Trainer(line())

    assert trainer.args.output_dir == "tmp_trainer"
    assert (tmp_path / "tmp_trainer").is_dir()


def test_the_arguments_of_the_original_are_taken(tmp_path: Path) -> None:
    theirs = transformers.TrainingArguments(str(tmp_path), learning_rate=0.25, report_to="none", use_cpu=True)
    trainer = Trainer(line(), theirs)

    assert isinstance(trainer.args, TrainingArguments)
    assert trainer.args.learning_rate == 0.25


def test_everything_is_seeded_at_construction(tmp_path: Path) -> None:
    quick(tmp_path, seed=11)
    drawn = torch.rand(2)
    torch.manual_seed(11)

    assert torch.equal(drawn, torch.rand(2))


def test_what_subclasses_find_on_the_trainer(tmp_path: Path) -> None:
    trainer = quick(tmp_path, processing_class="words")

    assert trainer.processing_class == "words"
    assert trainer.model_wrapped is trainer.model
    assert trainer.label_names == ["labels"]
    assert trainer.can_return_loss is False
    assert trainer.model_accepts_loss_kwargs is False
    assert trainer.is_in_train is False
    assert trainer.place_model_on_device is True
    assert not trainer.is_deepspeed_enabled
    assert not trainer.is_fsdp_enabled
    assert not trainer.is_model_parallel
    assert (trainer.optimizer, trainer.lr_scheduler) == (None, None)
    assert trainer.state.global_step == 0
    assert trainer.current_gradient_accumulation_steps == 1
    assert trainer.current_flos == 0


def test_the_cache_of_the_model_is_as_the_arguments_say(tmp_path: Path) -> None:
    model = line()
    model.config = SimpleNamespace(use_cache=True)
    quick(tmp_path, model=model)
    assert model.config.use_cache is False

    quick(tmp_path, model=model, use_cache=True)
    assert model.config.use_cache is True


@pytest.mark.parametrize("mark", ["hf_device_map", "quantization_method"])
def test_a_model_that_says_where_its_parts_are_stays_there(tmp_path: Path, mark: str) -> None:
    moved: list[Any] = []

    class Placed(Line):
        def to(self, *args: Any, **kwargs: Any) -> Any:
            moved.append(args)
            return super().to(*args, **kwargs)

    quick(tmp_path, model=Placed())
    assert moved == [(torch.device("cpu"),)]
    placed = Placed()
    setattr(placed, mark, "somewhere")
    quick(tmp_path, model=placed)
    assert len(moved) == 1


def test_processes_that_cannot_find_each_other_are_told_how_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")

    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ArgumentError, match=r"WORLD_SIZE=2 .* MASTER_ADDR .*torchrun --nproc-per-node 2 script.py"):
        quick(tmp_path)


# Models made for each run


def test_a_model_is_made_anew_for_each_run(tmp_path: Path) -> None:
    made: list[nn.Module] = []

    def make() -> nn.Module:
        made.append(Line())
        return made[-1]

    trainer = quick(tmp_path, model_init=make, learning_rate=0.1)
    assert trainer.model is made[0]
    trainer.train()
    first, optimizer = trainer.model, trainer.optimizer
    trainer.train()

    assert len(made) == 3
    assert trainer.model is made[2]
    assert trainer.optimizer is not optimizer
    # Seeded each time, so that equal runs are equal.
    assert torch.equal(first.layer.weight, trainer.model.layer.weight)
    assert trainer.callback_handler.model is trainer.model
    assert trainer.evaluate(Points(4))["eval_loss"] > 0


def test_a_model_may_be_made_from_the_trial(tmp_path: Path) -> None:
    trials: list[Any] = []
    trainer = quick(tmp_path, model_init=lambda trial: trials.append(trial) or Line())
    trainer.train(trial={"learning_rate": 0.1})

    assert trials == [None, {"learning_rate": 0.1}]
    assert trainer.state.is_hyper_param_search


# Runs


def test_a_run_comes_to_a_triple(tmp_path: Path) -> None:
    trainer = quick(tmp_path, num_train_epochs=2, logging_steps=1)
    output = trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    assert isinstance(output, TrainOutput)
    assert output.global_step == 10
    assert output.training_loss == pytest.approx(sum(losses) / 10)
    assert output.metrics.keys() == {
        "train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos", "train_loss", "epoch",
    }  # fmt: skip
    assert output.metrics["train_loss"] == output.training_loss


def test_speeds_are_those_of_what_was_done(tmp_path: Path) -> None:
    # 5 of 15 steps of a batch of 4, so 20 of 60 samples.
    trainer = quick(tmp_path, num_train_epochs=3)
    with trainer.steps() as steps:
        for state in steps:
            if state.global_step == 5:
                break
    metrics = trainer.train_output.metrics

    assert metrics["train_samples_per_second"] == pytest.approx(4 * metrics["train_steps_per_second"], rel=1e-3)


def test_a_second_run_begins_anew_and_goes_on_with_the_model(tmp_path: Path) -> None:
    trainer = quick(tmp_path, learning_rate=0.1)
    trainer.train()
    weight, optimizer = trainer.model.layer.weight.detach().clone(), trainer.optimizer
    trainer.train()

    assert trainer.state.global_step == 5
    assert len(trainer.state.log_history) == 1
    assert not torch.equal(weight, trainer.model.layer.weight)
    assert trainer.optimizer is optimizer


def test_a_second_run_equals_the_originals(tmp_path: Path) -> None:
    weights = []
    for side in (transformers, None):
        made = {
            "output_dir": str(tmp_path),
            "per_device_train_batch_size": 4,
            "num_train_epochs": 1,
            "learning_rate": 0.1,
        }
        quiet = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
        kind = side.TrainingArguments if side else TrainingArguments
        trainer = (side.Trainer if side else Trainer)(line(), kind(**made, **quiet), train_dataset=Points())
        trainer.train()
        trainer.train()
        weights.append(trainer.model.layer.weight)

    assert torch.equal(*weights)


def test_a_schedule_of_ones_own_is_kept_for_a_second_run(tmp_path: Path) -> None:
    model = line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    trainer = quick(tmp_path, model=model, optimizers=(optimizer, schedule))
    trainer.train()
    trainer.train()

    assert trainer.lr_scheduler is schedule
    assert schedule.last_epoch == 10


def test_a_made_schedule_is_made_anew(tmp_path: Path) -> None:
    trainer = quick(tmp_path, logging_steps=1, learning_rate=0.5)
    for _ in range(2):
        trainer.train()
        rates = [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]
        assert rates == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1])


def test_a_stream_is_trained_on_for_max_steps(tmp_path: Path) -> None:
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            return iter(Points(10))

    trainer = quick(tmp_path, train_dataset=Stream(), max_steps=7)
    trainer.train()

    # Three batches a reading, the last of two samples.
    assert trainer.state.global_step == 7
    assert trainer.state.epoch == pytest.approx(2 + 1 / 7)


def test_the_time_of_a_run_may_be_limited(tmp_path: Path) -> None:
    trainer = quick(tmp_path, num_train_epochs=1000, max_time="0.05s")
    trainer.train()

    assert 1 <= trainer.state.global_step < 5000


# Numbers


@pytest.mark.parametrize("asked", [False, True])
def test_nan_reaches_the_log_unless_it_is_hidden_by_name(tmp_path: Path, asked: bool) -> None:
    class Bursts(Line):
        calls = 0

        def forward(self, x: torch.Tensor, labels: Any = None) -> Any:
            self.calls += 1
            outputs = super().forward(x, labels)
            return {**outputs, "loss": outputs["loss"] * (math.nan if self.calls == 3 else 1.0)}

    settings = {"logging_nan_inf_filter": True} if asked else {}
    trainer = quick(tmp_path, model=Bursts(), logging_steps=1, max_grad_norm=0, nonfinite="ignore", **settings)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    assert math.isfinite(losses[2]) is asked
    assert all(map(math.isfinite, losses[:2]))


def test_the_gradient_norm_is_the_one_before_clipping(tmp_path: Path) -> None:
    trainer = quick(tmp_path, max_grad_norm=1e-3, logging_steps=1, max_steps=1, train_sampling_strategy="sequential")
    trainer.train()
    model, data = line(), Points()
    model(data.x[:4], data.y[:4])["loss"].backward()
    norm = torch.stack([parameter.grad.norm() for parameter in model.parameters()]).norm()

    assert trainer.state.log_history[0]["grad_norm"] == pytest.approx(norm.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("batches", "settings"),
    [
        (5, {}),
        (5, {"gradient_accumulation_steps": 2}),
        (5, {"num_train_epochs": 2.5}),
        (5, {"gradient_accumulation_steps": 2, "max_steps": 7}),
        (5, {"gradient_accumulation_steps": 8}),
    ],
)
def test_the_lengths_of_a_run_are_those_of_the_original(tmp_path: Path, batches: int, settings: dict[str, Any]) -> None:
    ours = quick(tmp_path, **settings)
    theirs = transformers.Trainer(
        line(),
        transformers.TrainingArguments(
            str(tmp_path), report_to="none", use_cpu=True,
            **{"per_device_train_batch_size": 4, "num_train_epochs": 1, **settings},
        ),
        train_dataset=Points(),
    )  # fmt: skip
    values = [
        trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader()) for trainer in (theirs, ours)
    ]

    assert values[0] == values[1]
    assert len(ours.get_train_dataloader()) == batches


def test_the_output_folder_of_a_replica_is_not_made(tmp_path: Path) -> None:
    class Replica(TrainingArguments):
        should_save = False  # type: ignore[assignment]

    args = Replica(str(tmp_path / "never"), use_cpu=True, report_to="none")
    Trainer(line(), args)

    assert not (tmp_path / "never").exists()


def test_arguments_may_be_changed_between_runs(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    trainer = Trainer(line(), args, train_dataset=Points())
    trainer.args.num_train_epochs = 2
    trainer.train()

    assert trainer.state.global_step == 10


# Looking at the optimizer


def test_rates_groups_and_weights_can_be_looked_at_as_in_the_original(tmp_path: Path) -> None:
    theirs = transformers.Trainer(
        line(), transformers.TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, learning_rate=0.5)
    )
    ours = quick(tmp_path, learning_rate=0.5)
    for trainer in (theirs, ours):
        trainer.create_optimizer()
    weight = ours.model.layer.weight

    assert ours.get_learning_rates() == theirs.get_learning_rates() == [0.5, 0.5]
    assert ours.get_num_trainable_parameters() == theirs.get_num_trainable_parameters() == 4
    assert ours.get_optimizer_group(weight)["params"] == [weight]
    assert [len(group) for group in ours.get_optimizer_group()] == [
        len(group) for group in theirs.get_optimizer_group()
    ]
    assert ours.get_optimizer_group(nn.Parameter(torch.ones(1))) is None


@pytest.mark.parametrize(
    ("look", "message"),
    [
        (
            lambda trainer: trainer.get_learning_rates(),
            r"no optimizer yet; call create_optimizer\(\) or train\(\) first",
        ),
        (lambda trainer: trainer.get_optimizer_group(), "no optimizer yet"),
        (
            lambda trainer: trainer.create_scheduler(10),
            "create_scheduler needs an optimizer; call create_optimizer first",
        ),
    ],
)
def test_before_there_is_an_optimizer_that_is_told(tmp_path: Path, look: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        look(quick(tmp_path))


def test_what_a_subclass_says_of_its_models_holds_for_each_model_init(tmp_path: Path) -> None:
    class Says(Trainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.can_return_loss, self.label_names, self._signature_columns = True, ["labels"], ["x", "labels"]

    trainer = quick(tmp_path, Says, model_init=partial(line, 0), max_steps=1)
    trainer.train()
    assert (trainer.can_return_loss, trainer.label_names) == (True, ["labels"])
    assert trainer._signature_columns == ["x", "labels"]
