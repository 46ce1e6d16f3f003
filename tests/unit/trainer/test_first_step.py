"""Labels spread over predictions of another shape are an error, and errors of models say what to do about them."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small import Line, Points, quick
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from surestep import TrainerCallback
from surestep.errors import DataError
from surestep.trainer.first_step import advised, misfits_refused, with_first_watched


class Flat(Points):
    """Labels of shape (batch,) for predictions of shape (batch, 1)."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "labels": self.y[index, 0]}


class Counts(TrainerCallback):
    def __init__(self) -> None:
        self.steps = 0

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.steps += 1


@pytest.fixture(autouse=True)
def as_a_script() -> Iterator[None]:
    """Warn as an interpreter does that nobody told otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        yield


@pytest.mark.parametrize("ignoring_all", [False, True])
def test_labels_of_another_shape_than_the_predictions_are_refused(tmp_path: Path, ignoring_all: bool) -> None:
    counts = Counts()
    trainer = quick(tmp_path, train_dataset=Flat(), callbacks=[counts])
    if ignoring_all:
        warnings.simplefilter("ignore")
    shapes = r"Predictions of shape torch.Size\(\[4, 1\]\) are compared with labels of shape torch.Size\(\[4\]\), "
    message = shapes + r".*squeeze\(-1\).*filterwarnings"
    with pytest.raises(DataError, match=message):
        trainer.train()
    assert counts.steps == 0


def test_who_means_it_lets_the_warning_pass(tmp_path: Path) -> None:
    warnings.filterwarnings("ignore", message="Using a target size")
    trainer = quick(tmp_path, train_dataset=Flat())
    trainer.train()
    assert trainer.state.global_step == 5


def test_only_the_first_step_is_watched(tmp_path: Path) -> None:
    class Later(Line):
        calls = 0

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            self.calls += 1
            return super().forward(x, labels if self.calls == 1 else labels[:, 0])

    torch.manual_seed(0)
    trainer = quick(tmp_path, model=Later())
    with pytest.warns(UserWarning, match="Using a target size"):
        trainer.train()
    assert trainer.state.global_step == 5


def test_other_warnings_of_the_first_step_stay_warnings(tmp_path: Path) -> None:
    class Warns(Line):
        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            warnings.warn("something else", UserWarning, stacklevel=1)
            return super().forward(x, labels)

    torch.manual_seed(0)
    trainer = quick(tmp_path, model=Warns(), max_steps=1)
    with pytest.warns(UserWarning, match="something else"):
        trainer.train()
    assert trainer.state.global_step == 1


def test_filters_that_are_set_in_the_first_step_stay(tmp_path: Path) -> None:
    class Quiet(Line):
        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            warnings.filterwarnings("ignore", message="a noisy library")
            return super().forward(x, labels)

    before = list(warnings.filters)
    torch.manual_seed(0)
    quick(tmp_path, model=Quiet(), max_steps=1).train()
    own, *others = warnings.filters
    assert own[0] == "ignore"
    assert own[1].pattern == "a noisy library"
    assert others == before


@pytest.mark.parametrize("fails", [False, True])
def test_no_filter_of_ours_is_left(fails: bool) -> None:
    before = list(warnings.filters)
    with pytest.raises(KeyError) if fails else contextlib.nullcontext(), misfits_refused():
        assert len(warnings.filters) == len(before) + 1
        if fails:
            raise KeyError
    assert list(warnings.filters) == before
    with misfits_refused():
        warnings.resetwarnings()
    assert list(warnings.filters) == []


def test_the_watched_steps_are_the_steps() -> None:
    begun: list[int] = []

    def steps() -> Iterator[int]:
        for number in range(3):
            begun.append(number)
            yield number

    watched = with_first_watched(steps())
    assert begun == []
    assert next(watched) == 0
    assert begun == [0]
    assert list(watched) == [1, 2]
    assert list(with_first_watched(iter(()))) == []


# What models raise


def sentences(labels: list[int]) -> list[dict[str, Any]]:
    return [{"input_ids": [1, 2], "labels": label} for label in labels]


def bert() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    return BertForSequenceClassification(BertConfig(**sizes, intermediate_size=8, num_labels=3))


def test_a_label_that_comes_later_is_told_by_a_note(tmp_path: Path) -> None:
    trainer = quick(
        tmp_path,
        model=bert(),
        train_dataset=sentences([0, 1, 2, 0, 1, 2, 0, 7]),
        train_sampling_strategy="sequential",
    )
    with pytest.raises(IndexError, match="Target 7 is out of bounds") as failure:
        trainer.train()
    assert trainer.state.global_step == 1
    (note,) = failure.value.__notes__
    assert "A label is 7, which the model has no output for" in note


def test_a_wrong_width_is_told_by_a_note(tmp_path: Path) -> None:
    class Wide(Points):
        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return {"x": torch.ones(5), "labels": torch.ones(1)}

    with pytest.raises(RuntimeError, match="cannot be multiplied") as failure:
        quick(tmp_path, train_dataset=Wide()).train()
    assert failure.value.__notes__ == [
        "A layer takes 3 features and is given 5. Make the model for the width of the data, or reshape the data."
    ]


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be"), "use_cpu=True"),
        (IndexError("Target 9 is out of bounds."), "A label is 9"),
        (ValueError("Expected input batch_size (8) to match target batch_size (4)."), "8 predictions with 4 labels"),
        (DataError("mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)"), None),
        (KeyError("anything"), None),
    ],
)
def test_advice_is_a_note_on_the_same_error(error: Exception, advice: str | None) -> None:
    with pytest.raises(type(error)) as failure, advised(), advised():
        raise error
    assert failure.value is error
    notes = getattr(error, "__notes__", [])
    assert [advice in note for note in notes] == ([] if advice is None else [True])
