"""The `search` block of a job: what it fills in, and what each mistake in it is answered with."""

from __future__ import annotations

from typing import Any

import pytest

from surestep.errors import JobError
from surestep.jobs.job import Job, make_job
from surestep.jobs.space import values_shown

RATE = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
LEAST = {"task": "image_classification", "data": {"source": "sklearn:digits", "validation": 0.2}}


def job(search: Any, **more: Any) -> Job:
    return make_job({**LEAST, "search": search, **more}, "x")


def test_what_is_left_out_is_filled_in() -> None:
    search = job({"space": RATE}).search

    assert search is not None
    assert (search.backend, search.n_trials, search.sampler, search.pruner) == ("optuna", 20, "tpe", "median")
    assert [(name, str(within)) for name, within in search.varied()] == [("learning_rate", "0.0001 to 0.01, log")]
    assert make_job(LEAST, "x").search is None


def test_settings_of_the_model_stand_beside_arguments() -> None:
    search = job({"space": {"seed": {"low": 1, "high": 3}}, "model_space": {"width": {"choices": [8, 16]}}}).search

    assert search is not None
    assert {name: within.extremes for name, within in search.varied()} == {"seed": (1, 3), "model.width": (8, 16)}
    assert [str(within) for _, within in search.varied()] == ["1 to 3", "8, 16"]


@pytest.mark.parametrize(
    ("search", "arguments", "expected"),
    [
        ({}, {}, ("accuracy", "maximize")),
        ({}, {"metric_for_best_model": "eval_macro_f1"}, ("macro_f1", "maximize")),
        ({}, {"metric_for_best_model": "loss"}, ("loss", "minimize")),
        ({}, {"metric_for_best_model": "runtime"}, ("accuracy", "maximize")),
        ({"metric": "loss"}, {"metric_for_best_model": "macro_f1"}, ("loss", "minimize")),
    ],
)
def test_trials_are_compared_by_what_matters_to_the_job(search: Any, arguments: Any, expected: Any) -> None:
    found = job({"space": RATE, **search}, arguments=arguments)

    assert (found.search_metric, found.search_direction) == expected


def test_a_trial_is_the_job_with_other_values() -> None:
    declared = {"name": "residual_network", "width": 8, "dropout": 0.1}
    whole = job({"space": RATE}, model=declared, arguments={"seed": 3, "learning_rate": 0.5}, output_dir="there")
    trial = whole.with_values({"learning_rate": 0.01, "model.width": 16})

    assert trial.search is None
    assert trial.arguments == {"seed": 3, "learning_rate": 0.01}
    assert trial.model.model_dump(exclude_unset=True) == {**declared, "width": 16}
    assert (trial.output_dir, trial.data, trial.task) == ("there", whole.data, whole.task)
    with pytest.raises(JobError, match="width=12 is no multiple of 8"):
        whole.with_values({"model.width": 12})


MISTAKES = [
    ({}, "search: nothing is varied: write space"),
    ({"space": {"seed": 3}}, "search.space.seed: found 3 (int). Write keys and values."),
    ({"space": {"seed": {"low": 1}}}, "search.space.seed.high: this must be given."),
    ({"space": {"seed": {"low": 1, "hihg": 2}}}, "search.space.seed: unknown key 'hihg': did you mean 'high'?"),
    ({"space": {"seed": {"low": 2, "high": 2}}}, "search.space.seed: low=2 and high=2 leave no choice"),
    ({"space": {"seed": {"low": 0, "high": 2, "log": True}}}, "search.space.seed: low=0 has no logarithm"),
    ({"space": {"seed": {"low": 1, "high": 9, "log": True, "step": 2}}}, "log and step exclude each other"),
    ({"space": {"seed": {"low": 1, "high": 9, "step": 0}}}, "search.space.seed.step: found 0 (int)."),
    ({"space": {"seed": {"low": "1", "high": 9}}}, "search.space.seed.low: found '1' (str)."),
    ({"space": {"optim": {"choices": ["sgd"]}}}, "search.space.optim.choices: found ['sgd'] (list)."),
    ({"space": {"optim": {"choices": ["sgd", ["x"]]}}}, "search.space.optim.choices[1]"),
    (
        {"space": RATE, "model_space": {"widht": {"choices": [8, 16]}}},
        "has no 'widht' that can be varied: did you mean",
    ),
    ({"space": RATE, "model_space": {"name": {"choices": ["a", "b"]}}}, "has no 'name' that can be varied"),
    ({"space": RATE, "metric": "acuracy"}, "search.metric='acuracy' is not among the metrics of the job: did you mean"),
    ({"space": RATE, "backend": "ray"}, "search.backend: found 'ray' (str). Write optuna, whose study"),
    ({"space": RATE, "backend": "optune"}, "search.backend: found 'optune' (str). Input should be 'optuna'"),
    ({"space": RATE, "n_trials": 0}, "search.n_trials: found 0 (int)."),
    ({"space": RATE, "trials": 3}, "search: unknown key 'trials': did you mean 'n_trials'?"),
]


@pytest.mark.parametrize(("search", "said"), MISTAKES, ids=[said[:40] for _, said in MISTAKES])
def test_mistakes_are_answered_with_their_place_and_what_to_write(search: Any, said: str) -> None:
    with pytest.raises(JobError) as caught:
        job(search)
    assert said in str(caught.value)


def test_a_search_needs_data_to_compare_on() -> None:
    with pytest.raises(JobError, match=r"write a fraction such as data\.validation=0\.15"):
        job({"space": RATE}, data="sklearn:digits")


def test_values_are_shown_as_they_are_written() -> None:
    assert values_shown({"learning_rate": 0.00123456, "optim": "sgd", "seed": 3}) == (
        "learning_rate=0.001235, optim=sgd, seed=3"
    )
