"""Which backend a search takes, and what it is told where a package is missing."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import transformers
from tests.unit.trainer.search.small_search import searching

import surestep
from surestep.errors import MissingPackageError
from surestep.trainer.search import backend
from surestep.trainer.search.backend import HPSearchBackend, backend_class


def missing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(backend, "installed", lambda module: module not in names)


def test_the_backends_are_those_of_the_original() -> None:
    theirs = transformers.trainer_utils.HPSearchBackend

    assert [item.value for item in HPSearchBackend] == [item.value for item in theirs]
    assert [backend_class(name).name for name in HPSearchBackend] == ["optuna", "ray", "wandb"]


@pytest.mark.parametrize(
    ("absent", "expected"), [((), "optuna"), (("optuna",), "ray"), (("optuna", "tensorboardX"), "wandb")]
)
def test_the_first_that_is_installed_is_the_default(
    monkeypatch: pytest.MonkeyPatch, absent: tuple[str, ...], expected: str
) -> None:
    missing(monkeypatch, *absent)

    assert surestep.default_hp_search_backend() == expected


def test_none_installed_names_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, "optuna", "ray", "wandb")
    with pytest.raises(MissingPackageError, match=r"pip install optuna; pip install 'ray\[tune\]'; pip install wandb"):
        searching(tmp_path).hyperparameter_search()


def test_one_asked_for_and_not_installed_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, "ray")
    with pytest.raises(MissingPackageError, match=r'backend="ray"\) needs a package.*pip install \'ray\[tune\]\''):
        searching(tmp_path).hyperparameter_search(backend="ray")


def test_the_default_space_is_the_originals(tmp_path: Path) -> None:
    """The original's needs nothing but a trial, so both are drawn from with one seed."""
    drawn = [
        [space(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3)).ask()) for _ in range(2)]
        for space in (surestep.default_hp_space_optuna, transformers.trainer_utils.default_hp_space_optuna)
    ]

    assert drawn[0] == drawn[1]
    # The space that a search takes where none is given.
    trainer = searching(tmp_path, max_steps=2, eval_strategy="no")
    best = trainer.hyperparameter_search(n_trials=1, backend=HPSearchBackend.OPTUNA)
    assert best.hyperparameters.keys() == drawn[0][0].keys()
