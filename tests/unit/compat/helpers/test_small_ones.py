"""Collators of columns, batch sizes, texts, warnings and questions after packages, beside the original's."""

from __future__ import annotations

import logging
import warnings
from argparse import ArgumentTypeError
from typing import Any

import pytest
import torch
from transformers import hf_argparser, trainer_pt_utils, trainer_utils, training_args
from transformers.integrations import integration_utils

from surestep.compat.helpers import available, parsing
from surestep.compat.helpers.batch_size import find_executable_batch_size
from surestep.compat.helpers.columns import RemoveColumnsCollator
from surestep.compat.helpers.warned import reissue_pt_warnings
from surestep.errors import ArgumentError


@pytest.mark.parametrize("kind", [RemoveColumnsCollator, trainer_utils.RemoveColumnsCollator])
def test_columns_are_left_out_and_told_once(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("columns")
    logger.setLevel(logging.INFO)
    collator = kind(list, ["a"], logger, "Net", "training")

    assert collator([{"a": 1, "b": 2}, {"a": 3}]) == [{"a": 1}, {"a": 3}]
    assert collator([{"b": 1}, (1, 2)]) == [{}, (1, 2)]
    assert [("b" in message, "Net.forward" in message) for message in caplog.messages] == [(True, True)]


def test_a_batch_size_that_fits_is_found() -> None:
    tried = []

    @find_executable_batch_size(starting_batch_size=100, auto_find_batch_size=True)
    def train(batch_size: int, name: str) -> str:
        tried.append(batch_size)
        if batch_size > 80:
            raise torch.OutOfMemoryError
        return f"{name} {batch_size}"

    assert train("run") == "run 72"
    assert tried == [100, 90, 81, 72]


@pytest.mark.parametrize("find", [find_executable_batch_size, trainer_utils.find_executable_batch_size])
def test_a_batch_size_may_be_left_alone(find: Any) -> None:
    assert find(lambda batch_size: batch_size, starting_batch_size=7)() == 7


TEXTS = ["yes", "NO", "t", "False", "1", "0", "on", "off", "maybe"]


@pytest.mark.parametrize("text", TEXTS)
def test_truth(text: str) -> None:
    def read(call: Any, *error: type[Exception]) -> Any:
        try:
            return call(text)
        except error:
            return error

    for ours, theirs, error in (
        (parsing.string_to_bool, hf_argparser.string_to_bool, ArgumentTypeError),
        (parsing.str_to_bool, training_args.str_to_bool, ValueError),
        (lambda one: parsing.str_to_bool(one, False), lambda one: training_args.str_to_bool(one, False), ValueError),
    ):
        assert read(ours, error) == read(theirs, error)
    assert parsing.string_to_bool(True) is True
    assert str(parsing.str_to_bool("1", False)) == "1"


def test_a_truth_value_that_is_none_is_told() -> None:
    with pytest.raises(ArgumentError, match="'maybe' is no truth value: write one of yes"):
        parsing.str_to_bool("maybe")


def test_choices_and_levels() -> None:
    for text in ("1", "two", "3"):
        assert parsing.make_choice_type_function([1, "two"])(text) == hf_argparser.make_choice_type_function(
            [1, "two"]
        )(text)
    assert parsing.log_levels == training_args.log_levels
    assert parsing.trainer_log_levels == training_args.trainer_log_levels


def test_warnings_are_given_again() -> None:
    def told(reissue: Any, *kinds: type[Warning]) -> list[type[Warning]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for kind in kinds:
                warnings.warn("text", kind, stacklevel=2)
        with warnings.catch_warnings(record=True) as again:
            warnings.simplefilter("always")
            reissue(caught)
        return [one.category for one in again]

    for kinds in ((FutureWarning,), (FutureWarning, UserWarning, DeprecationWarning), ()):
        assert told(reissue_pt_warnings, *kinds) == told(trainer_pt_utils.reissue_pt_warnings, *kinds)


QUESTIONS = [
    name
    for name, value in vars(integration_utils).items()
    if name.startswith("is_") and getattr(value, "__module__", None) == integration_utils.__name__
]


@pytest.mark.parametrize("name", QUESTIONS)
def test_packages_are_asked_for_as_there(name: str) -> None:
    assert getattr(available, name)() == bool(getattr(integration_utils, name)())
    assert name in dir(available)


@pytest.mark.parametrize("name", ["is_mlflow_available", "is_kubeflow_available"])
@pytest.mark.parametrize("disabled", ["TRUE", "false"])
def test_two_questions_are_answered_by_the_environment(
    name: str, disabled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", "http://localhost")
    monkeypatch.setenv("DISABLE_MLFLOW_INTEGRATION", disabled)
    monkeypatch.setenv("DISABLE_KUBEFLOW_INTEGRATION", disabled)

    assert getattr(available, name)() == getattr(integration_utils, name)()


def test_a_question_that_nobody_knows() -> None:
    with pytest.raises(AttributeError, match="is_nothing_available"):
        _ = available.is_nothing_available
