"""Sweeps with W&B's own agent, against a server on this machine that draws the values; runs are written offline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("wandb", reason="needs wandb: make test-search")

import wandb

from surestep import Trainer, TrainerCallback
from surestep.errors import ArgumentError, SearchError, UnknownArgumentError
from tests.searchers.sweep_server import SweepServer
from tests.small import Line, Points, quick

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]
SPACE = {"method": "random", "parameters": {"learning_rate": {"min": 1e-3, "max": 1e-1}}}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings = {"API_KEY": "0" * 40, "DIR": str(tmp_path), "SILENT": "true", "ERROR_REPORTING": "false"}
    for name, value in {**settings, "MODE": "offline"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    yield
    wandb.teardown()


def searching(folder: Path, **settings: Any) -> Trainer:
    parts = {"model_init": Line, "eval_dataset": Points(8, seed=3), "eval_strategy": "epoch", "num_train_epochs": 2}
    return quick(folder / "out", **{**parts, "learning_rate": 0.01, **settings})


def search(trainer: Trainer, server: SweepServer, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    with server.serving() as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        given = {"n_trials": 2, "project": "small", "entity": "me", **options}
        return trainer.hyperparameter_search(lambda trial: dict(SPACE), backend="wandb", **given)


def plain_loss(folder: Path, **settings: Any) -> float:
    trainer = searching(folder / "plain", **settings)
    trainer.train()
    return next(entry["eval_loss"] for entry in reversed(trainer.state.log_history) if "eval_loss" in entry)


TRIALS = [{"learning_rate": 0.002}, {"learning_rate": 0.05, "seed": 3}]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_trials_are_plain_runs_with_the_servers_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direction: str
) -> None:
    names: list[tuple[str, dict[str, Any]]] = []

    class Notes(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            names.append((state.trial_name, state.trial_params))

    trainer = searching(tmp_path, callbacks=[Notes()], save_strategy="epoch")
    server = SweepServer(TRIALS)
    best = search(trainer, server, monkeypatch, direction=direction, name="mine", metric="eval/loss")
    values = [plain_loss(tmp_path, **values) for values in TRIALS]
    wanted = min(values) if direction == "minimize" else max(values)

    assert server.config["metric"] == {"name": "eval/loss", "goal": direction}
    assert server.config["name"] == "mine"
    assert names == [("run-run0", TRIALS[0]), ("run-run1", TRIALS[1])]
    number = values.index(wanted)
    assert best == (f"run{number}", wanted, TRIALS[number], "sweep0")
    assert all((tmp_path / "out" / name / "checkpoint-10").is_dir() for name, _ in names)
    # Each trial has a run of its own, with its evaluations.
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2
    assert trainer.args.learning_rate == 0.01


def test_a_sweep_that_is_there_is_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = SweepServer(TRIALS[:1])
    best = search(searching(tmp_path), server, monkeypatch, sweep_id="other", n_trials=1)

    assert best.run_summary == "other"
    assert server.config == {}
    assert server.agents == 1


def test_a_trial_that_fails_ends_the_search_with_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match="learning_rate"):
        search(searching(tmp_path), SweepServer([{"learning_rate": -1.0}]), monkeypatch, n_trials=1)


def test_a_server_without_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SearchError, match="No trial of the sweep sweep0 was run here"):
        search(searching(tmp_path), SweepServer([]), monkeypatch)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"direction": ["minimize", "maximize"]}, ArgumentError, "compares trials by one objective"),
        ({"projct": "x"}, UnknownArgumentError, "takes no 'projct'. Did you mean 'project'"),
    ],
)
def test_what_cannot_be_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        search(searching(tmp_path), SweepServer([]), monkeypatch, **options)


def test_without_a_server_there_is_no_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(SearchError, match=r"No sweep could be made: .* use backend=.optuna., which needs no server"):
        searching(tmp_path).hyperparameter_search(lambda trial: dict(SPACE), backend="wandb")
