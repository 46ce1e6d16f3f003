"""Ray Tune for real: processes of its own, schedulers that stop trials or let them take over others' checkpoints."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs ray[tune]: make test-search")
pytest.importorskip("tensorboardX", reason="needs ray[tune]: make test-search")

import ray
from ray import tune

from surestep import Trainer
from surestep.errors import ArgumentError
from tests.small import Line, Points, quick

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True, scope="module")
def _cluster() -> Iterator[None]:
    # Ray's processes import the tests that define what they are sent.
    variables = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": variables})
    yield
    ray.shutdown()


def searching(folder: Path, **settings: Any) -> Trainer:
    parts = {"model_init": Line, "eval_dataset": Points(8, seed=3), "eval_strategy": "epoch", "num_train_epochs": 2}
    return quick(folder / "out", **{**parts, "learning_rate": 0.01, **settings})


def search(trainer: Trainer, folder: Path, space: dict[str, Any], **options: Any) -> Any:
    quiet = {"n_trials": 2, "verbose": 0, "storage_path": str(folder / "ray")}
    return trainer.hyperparameter_search(lambda trial: dict(space), backend="ray", **{**quiet, **options})


RATES = {"learning_rate": tune.loguniform(1e-3, 1e-1), "seed": tune.randint(1, 9)}


def plain_losses(folder: Path, **settings: Any) -> list[float]:
    trainer = searching(folder / "plain", **settings)
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    return losses or [trainer.evaluate()["eval_loss"]]


@pytest.mark.parametrize("settings", [{"save_strategy": "epoch"}, {"eval_strategy": "no"}], ids=str)
def test_trials_are_plain_runs_in_processes_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = searching(Path(), **settings, skip_memory_metrics=False)
    best = search(trainer, tmp_path, RATES, hp_name=None)
    trials = best.run_summary.trials

    for trial in trials:
        assert trial.last_result["objective"] == plain_losses(tmp_path, **settings, **trial.config)[-1]
        assert trial.last_result["pid"] != os.getpid()
        if settings.get("save_strategy"):
            # A relative folder is that of the driver, wherever Ray's processes work.
            assert (tmp_path / "out" / f"run-{trial.trial_id}" / "checkpoint-10").is_dir()
    assert best.objective == min(trial.last_result["objective"] for trial in trials)
    assert best.run_id in {trial.trial_id for trial in trials}
    assert best.hyperparameters.keys() == RATES.keys()
    assert (trainer.args.learning_rate, trainer.args.output_dir) == (0.01, "out")


def test_the_worse_half_is_stopped_early(tmp_path: Path) -> None:
    trainer = searching(tmp_path, num_train_epochs=4, lr_scheduler_type="constant")
    scheduler = tune.schedulers.ASHAScheduler(metric="objective", mode="min", max_t=4, grace_period=1)
    best = search(
        trainer,
        tmp_path,
        {"learning_rate": tune.grid_search([0.05, 1e-7])},
        n_trials=1,
        scheduler=scheduler,
        max_concurrent_trials=1,
    )
    reports = {
        trial.config["learning_rate"]: trial.last_result["training_iteration"] for trial in best.run_summary.trials
    }

    assert reports == {0.05: 4, 1e-7: 1}
    assert best.hyperparameters["learning_rate"] == 0.05


def test_a_trial_takes_over_the_checkpoint_of_a_better_one(tmp_path: Path) -> None:
    trainer = searching(tmp_path, num_train_epochs=3, save_strategy="epoch", lr_scheduler_type="constant")
    scheduler = tune.schedulers.PopulationBasedTraining(
        metric="objective",
        mode="min",
        time_attr="training_iteration",
        perturbation_interval=1,
        quantile_fraction=0.5,
        resample_probability=0.0,
        synch=True,
        hyperparam_mutations={"learning_rate": [0.04, 0.05, 0.06]},
    )
    best = search(
        trainer,
        tmp_path,
        {"learning_rate": tune.grid_search([0.05, 1e-7])},
        n_trials=1,
        scheduler=scheduler,
        keep_checkpoints_num=2,
    )
    rates = [trial.config["learning_rate"] for trial in best.run_summary.trials]
    values = [trial.last_result["objective"] for trial in best.run_summary.trials]

    # The one that did not learn goes on where the other was, with another rate, and comes as far.
    assert min(rates) > 1e-3
    assert max(values) < 0.5


def test_the_model_may_depend_on_the_trial(tmp_path: Path) -> None:
    def make(trial: Any) -> Any:
        import torch

        model = Line()
        width = 2 if trial is None else trial["width"]
        model.layer = torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.Linear(width, 1))
        return model

    best = search(searching(tmp_path, model_init=make), tmp_path, {"width": tune.choice([3, 4])}, n_trials=1)

    assert best.hyperparameters["width"] in (3, 4)


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({}, {"direction": ["minimize", "maximize"]}, "compares trials by one objective"),
        ({}, {"n_trials": None}, "n_trials is None"),
        (
            {"eval_strategy": "no"},
            {"scheduler": tune.schedulers.ASHAScheduler()},
            'scheduler is a AsyncHyperBandScheduler, and eval_strategy is "no"',
        ),
    ],
)
def test_what_cannot_be_right(tmp_path: Path, settings: Any, options: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        search(searching(tmp_path, **settings), tmp_path, RATES, **options)


def test_the_default_space_has_whole_seeds() -> None:
    from surestep import default_hp_space_ray

    space = default_hp_space_ray(None)
    assert set(space) == {"learning_rate", "num_train_epochs", "seed", "per_device_train_batch_size"}
    assert all(isinstance(space["seed"].sample(), int) and 1 <= space["seed"].sample() <= 40 for _ in range(20))
