"""Every example runs, and learns. Job files are run in tests/cli."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses look up the annotations of their fields.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "epochs", "score", "least"),
    [("image_classification", 2, "test_accuracy", 0.8), ("text_classification", 8, "eval_accuracy", 0.8)],
)
def test_an_example_runs_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, epochs: int, score: str, least: float
) -> None:
    given = ["--output_dir", str(tmp_path / "run"), "--disable_tqdm", "True"]
    example = _load(name)
    scores = example.main([*given, "--num_train_epochs", str(epochs)])
    assert scores[score] > least
    assert f"accuracy {scores[score]:.4f}, written to {tmp_path / 'run'}" in capsys.readouterr().out
    assert list((tmp_path / "run").glob("checkpoint-*"))


@pytest.mark.parametrize("name", ["image_classification", "text_classification"])
def test_an_example_can_be_read_on_a_page(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 110


def test_a_search_goes_on_where_it_was(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    example = _load("hyperparameter_search")
    given = ["--output_dir", str(tmp_path), "--num_train_epochs", "2"]
    example.main([*given, "--n_trials", "2"])
    best = example.main([*given, "--n_trials", "3"])

    assert best.objective > 0.8
    assert len(best.run_summary.trials) == 3
