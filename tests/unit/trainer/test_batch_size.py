"""Finding a batch size that fits: what is tried, and that nothing of a failed attempt is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import find_executable_batch_size
from tests.small import Line, Points, quick
from torch import Tensor, nn

from surestep import EarlyStoppingCallback, Trainer, TrainerCallback
from surestep.trainer.batch_size import NoBatchSizeFitsError, find_batch_size, is_out_of_memory

CPU = torch.device("cpu")


class Hungry(Line):
    """Runs out of memory above a number of samples, in training from the `after`-th forward on."""

    def __init__(self, fits: int, after: int = 0, evaluates: int = 100) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.fits, self.after, self.evaluates = fits, after, evaluates
        self.norm, self.drop = nn.BatchNorm1d(3), nn.Dropout(0.2)
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.tried: list[int] = []

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        if self.training:
            self.tried.append(len(x))
            self.seen += 1
        fits = self.fits if self.training else self.evaluates
        if len(x) > fits and (not self.training or self.seen > self.after):
            raise torch.OutOfMemoryError("no memory")
        return super().forward(self.drop(self.norm(x)), labels)


def tensors(trainer: Trainer) -> dict[str, Tensor]:
    model = trainer.model
    return {name: value.clone() for name, value in [*model.named_parameters(), *model.named_buffers()]}


def assert_same_run(found: Trainer, plain: Trainer) -> None:
    one, other = tensors(found), tensors(plain)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    clock = ("_runtime", "_per_second")
    histories = [
        [{name: value for name, value in entry.items() if not name.endswith(clock)} for entry in run.state.log_history]
        for run in (found, plain)
    ]
    assert histories[0] == histories[1]
    assert found.state.train_batch_size == plain.state.train_batch_size
    assert found.state.max_steps == plain.state.max_steps


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 2}, {"bf16": True}], ids=str)
def test_the_result_is_that_of_a_run_with_the_size_found(settings: Any, after: int, tmp_path: Path) -> None:
    common = {"logging_steps": 1, "num_train_epochs": 2, **settings}
    found = quick(
        tmp_path / "found",
        model=Hungry(6, after),
        auto_find_batch_size=True,
        per_device_train_batch_size=8,
        **common,
    )
    found.train()
    plain = quick(tmp_path / "plain", model=Hungry(6), per_device_train_batch_size=6, **common)
    plain.train()

    assert max(found.model.tried) == 8
    assert found.state.train_batch_size == 6
    assert_same_run(found, plain)


def own(model: nn.Module) -> Any:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)


def found_and_plain(folder: Path, make: Any) -> tuple[Trainer, Trainer]:
    """Run what `make(folder, **settings)` makes twice: from 8 samples down, and with the 6 that fit."""
    found = make(folder / "found", per_device_train_batch_size=8, auto_find_batch_size=True, logging_steps=1)
    found.train()
    assert found.state.train_batch_size == 6
    plain = make(folder / "plain", per_device_train_batch_size=6, logging_steps=1)
    plain.train()
    return found, plain


def test_an_optimizer_and_a_schedule_of_the_user_begin_anew(tmp_path: Path) -> None:
    def make(folder: Path, **settings: Any) -> Trainer:
        model = Hungry(6, 1)
        return quick(folder, model=model, optimizers=own(model), **settings)

    assert_same_run(*found_and_plain(tmp_path, make))


def test_a_model_made_anew(tmp_path: Path) -> None:
    def make(folder: Path, **settings: Any) -> Trainer:
        return quick(folder, model_init=lambda: Hungry(6, 1), **settings)

    assert_same_run(*found_and_plain(tmp_path, make))


class Freezes(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        model.layer.bias.requires_grad_(False)


def test_what_a_callback_froze_and_counted_is_forgotten(tmp_path: Path) -> None:
    def make(folder: Path, **settings: Any) -> Trainer:
        # No evaluation is better by so much: the third one stops the run, unless a failed attempt counted too.
        early = EarlyStoppingCallback(early_stopping_patience=3, early_stopping_threshold=1e6)
        return quick(
            folder,
            model=Hungry(6, 1),
            callbacks=[early, Freezes()],
            eval_dataset=Points(),
            eval_strategy="steps",
            eval_steps=1,
            metric_for_best_model="loss",
            save_strategy="steps",
            save_steps=1,
            load_best_model_at_end=True,
            num_train_epochs=3,
            **settings,
        )

    found, plain = found_and_plain(tmp_path, make)
    assert_same_run(found, plain)
    assert found.state.global_step == 4


def test_the_sizes_tried_are_those_of_the_original() -> None:
    def tried_by(search: Any) -> list[int]:
        tried: list[int] = []

        def run(batch_size: int) -> int:
            tried.append(batch_size)
            if batch_size > 12:
                raise RuntimeError("CUDA out of memory. Tried to allocate")
            return batch_size

        assert search(run) == 12
        return tried

    theirs = tried_by(lambda run: find_executable_batch_size(run, starting_batch_size=20)())
    ours = tried_by(lambda run: find_batch_size(run, 20, CPU, reset=lambda: None))

    assert ours == theirs
    assert ours == [20, 18, 16, 14, 12]


def test_nothing_fits(tmp_path: Path) -> None:
    model = Hungry(0)
    trainer = quick(tmp_path, model=model, auto_find_batch_size=True)
    message = r"No batch size fits into memory, from 4 down to 1\. Use a smaller model, activation_checkpointing=True"
    with pytest.raises(NoBatchSizeFitsError, match=message):
        trainer.train()

    assert sorted(set(trainer.model.tried), reverse=True) == [4, 3, 2, 1]


def test_an_evaluation_without_memory_is_told_and_not_tried_again(tmp_path: Path) -> None:
    trainer = quick(
        tmp_path,
        model=Hungry(8, evaluates=5),
        auto_find_batch_size=True,
        eval_dataset=Points(),
        eval_strategy="epoch",
    )
    with pytest.raises(NoBatchSizeFitsError, match=r"Evaluation ran out.*smaller per_device_eval_batch_size"):
        trainer.train()

    assert set(trainer.model.tried) == {4}


def test_another_error_is_raised_at_once(tmp_path: Path) -> None:
    class Breaks(Line):
        def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        quick(tmp_path, model=Breaks(), auto_find_batch_size=True).train()


def test_without_the_setting_the_error_is_the_users(tmp_path: Path) -> None:
    with pytest.raises(torch.OutOfMemoryError, match="no memory"):
        quick(tmp_path, model=Hungry(2)).train()


def test_resuming_goes_on_with_the_size_found(tmp_path: Path) -> None:
    settings = {"per_device_train_batch_size": 8, "auto_find_batch_size": True, "num_train_epochs": 2}
    saved = {"save_strategy": "steps", "save_steps": 3, "logging_steps": 1}
    whole = quick(tmp_path, model=Hungry(6), **settings, **saved)
    whole.train()
    resumed = quick(tmp_path / "resumed", model=Hungry(6), **settings, **saved)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))

    assert max(resumed.model.tried) == 6
    assert torch.equal(whole.model.layer.weight, resumed.model.layer.weight)
    assert torch.equal(whole.model.norm.running_mean, resumed.model.norm.running_mean)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear"), True),
        (RuntimeError("size mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_means_that_memory_ran_out(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
