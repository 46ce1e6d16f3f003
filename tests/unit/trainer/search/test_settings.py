"""Values of a trial as arguments: text and fractions as sweeps give them, names that no setting has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.small import arguments

from surestep.errors import ArgumentError
from surestep.logs import warn_once
from surestep.trainer.search.settings import Original, set_arguments


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("learning_rate", "1e-4", 1e-4),
        ("learning_rate", np.float64(0.5), 0.5),
        ("per_device_train_batch_size", "16", 16),
        ("per_device_train_batch_size", 16.0, 16),
        ("per_device_train_batch_size", np.int64(16), 16),
        ("warmup_steps", 0.1, 0.1),
        ("lr_scheduler_type", "cosine", "cosine"),
        ("bf16", False, False),
    ],
)
def test_a_value_is_taken_in_the_form_that_the_setting_has(tmp_path: Path, name: str, given: Any, kept: Any) -> None:
    args = arguments(tmp_path)
    set_arguments(args, {name: given}, others_are_read=False)

    value = getattr(args, name)
    assert value == kept
    assert type(value) is type(kept) or name == "lr_scheduler_type"


def test_a_fraction_for_a_whole_number_is_cut_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_once.cache_clear()
    args = arguments(tmp_path)
    for seed in (17.9, 18.1):
        set_arguments(args, {"seed": seed}, others_are_read=False)

    assert args.seed == 18
    assert [record.message for record in caplog.records] == [
        "The space of the search gives seed fractions: each is cut to a whole number."
    ]


@pytest.mark.parametrize("value", ["False", "yes", 1])
def test_what_only_reads_as_a_truth_value_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ArgumentError, match="bf16"):
        set_arguments(arguments(tmp_path), {"bf16": value}, others_are_read=False)


def test_a_name_of_the_model_is_left_to_model_init(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_once.cache_clear()
    args = arguments(tmp_path)
    with pytest.raises(ArgumentError, match=r"names 'hidden'.*has to take the trial: def model_init\(trial\)"):
        set_arguments(args, {"hidden": 5}, others_are_read=False)
    set_arguments(args, {"hidden": 5}, others_are_read=True)

    assert "which only model_init reads" in caplog.text
    assert not hasattr(args, "hidden")


def test_older_names_are_taken(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    with pytest.warns(FutureWarning, match="per_gpu_train_batch_size"):
        set_arguments(args, {"per_gpu_train_batch_size": 2}, others_are_read=False)

    assert args.per_device_train_batch_size == 2


def test_what_was_attached_may_be_searched(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    args.temperature = 1.0
    set_arguments(args, {"temperature": 2.0}, others_are_read=False)

    assert args.temperature == 2.0


def test_arguments_are_put_back_more_than_once(tmp_path: Path) -> None:
    args = arguments(tmp_path, lr_scheduler_kwargs={"num_cycles": 1})
    before = Original(args)
    for _ in range(2):
        args.learning_rate = 3.0
        args.lr_scheduler_kwargs["num_cycles"] = 2
        args.own = 1
        before.put_back()

        assert args.learning_rate == 5e-5
        assert args.lr_scheduler_kwargs == {"num_cycles": 1}
        assert not hasattr(args, "own")
