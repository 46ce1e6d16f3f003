"""Studies that outlive a process: real ones, killed in the middle, and several at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from tests.unit.trainer.search.small_search import rates, searching, seeded
from tests.warm import Process, server

from surestep.errors import ArgumentError
from surestep.trainer.search.optuna_study import open_storage

SEARCHER = Path(__file__).with_name("searcher.py")


def start(*arguments: Any) -> Process:
    return server().start([SEARCHER, *map(str, arguments)])


def finish(process: Process) -> tuple[list[Any], str]:
    """Wait for a process and return the best that it found, with what it said on the way."""
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1]), errors


def load(path: Path) -> optuna.Study:
    return optuna.load_study(study_name="small", storage=open_storage(path))


def test_a_search_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "study.journal"
    killed = start(tmp_path, path, 3, 1, 8)
    killed.communicate(timeout=200)
    assert killed.returncode == -signal.SIGKILL
    assert [trial.state.name for trial in load(path).trials] == ["COMPLETE", "RUNNING"]

    best, errors = finish(start(tmp_path, path, 3))
    study = load(path)
    states = [trial.state.name for trial in study.trials]
    before, after = study.trials[1:3]

    assert states == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert "The study 'small' goes on (1 complete, 1 fail, 1 waiting): 2 trials are left." in errors
    # The trial that was cut off goes on from its checkpoint, with the values and reports that it had.
    assert "Trial 2 takes over trial 1, which was cut off, at step 6." in errors
    assert after.params == before.params
    assert list(after.intermediate_values) == [5, 10]
    log = (tmp_path / "run-2" / "train_log.jsonl").read_text().splitlines()
    assert json.loads(log[0])["step"] == 6
    # It comes to what an undisturbed run comes to.
    plain = searching(tmp_path / "plain", **after.params)
    plain.train()
    assert after.value == plain.state.log_history[-2]["eval_loss"]
    # The sampler's seed is not drawn from twice.
    assert len({trial.params["learning_rate"] for trial in study.trials}) == 3
    assert best[1] == study.best_value


def test_several_processes_share_the_trials_of_one_study(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    # The study is there before they come, so that they do not make it at the same time.
    searching(tmp_path).hyperparameter_search(rates, n_trials=1, storage=path, study_name="small", sampler=seeded())
    processes = [start(tmp_path, path, 7) for _ in range(2)]
    answers = [finish(process)[0] for process in processes]
    trials = load(path).trials

    # Optuna prunes by itself from the sixth trial on.
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}
    completed = [trial.value for trial in trials if trial.state.name == "COMPLETE"]
    # Two that begin their last at the same instant may make one too many.
    assert len(trials) in (7, 8)
    assert len({trial.params["learning_rate"] for trial in trials}) == len(trials)
    assert min(answer[1] for answer in answers) == min(completed)
    for trial in trials:
        assert trial.user_attrs["folder"] == str(tmp_path / f"run-{trial.number}")


def test_a_trial_that_somebody_works_on_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = optuna.create_study(storage=open_storage(path), study_name="small")
    places = {"here": (tmp_path / "run-0", None), "elsewhere": (tmp_path / "run-1", "another machine")}
    for folder, host in places.values():
        trial = study.ask()
        rates(trial)
        trial.set_user_attr("folder", str(folder))
        trial.set_user_attr("host", host or os.uname().nodename)
    (tmp_path / "run-0").mkdir()
    # One of another process: what this process holds it could take again.
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run-0")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline()
    study.ask()

    searching(tmp_path).hyperparameter_search(
        rates, n_trials=4, storage=path, study_name="small", load_if_exists=True, sampler=seeded()
    )
    assert [trial.state.name for trial in load(path).trials] == ["RUNNING", "RUNNING", "RUNNING", "COMPLETE"]

    holder.communicate(timeout=60)
    searching(tmp_path).hyperparameter_search(
        rates, n_trials=5, storage=path, study_name="small", load_if_exists=True, sampler=seeded()
    )
    states = [trial.state.name for trial in load(path).trials]
    assert states == ["FAIL", "RUNNING", "RUNNING", "COMPLETE", "COMPLETE", "COMPLETE"]


HOLD = """
import sys
from pathlib import Path
from surestep.checkpoint.lock import FolderLock
FolderLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_trial_is_run_again_and_a_failed_one_that_was_caught_is_not(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "study.journal"
    fails = {"now": True}

    def space(trial: Any) -> dict[str, Any]:
        values = rates(trial)
        if trial.number == 1 and fails["now"]:
            raise error("stop")
        return values

    options = {"storage": path, "study_name": "small", "load_if_exists": True, "sampler": seeded()}
    with pytest.raises(error):
        searching(tmp_path).hyperparameter_search(space, n_trials=3, **options)
    best = searching(tmp_path).hyperparameter_search(space, n_trials=3, **options)
    trials = best.run_summary.trials

    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[2].params == trials[1].params
    # A third time there is nothing left to do.
    again = searching(tmp_path).hyperparameter_search(space, n_trials=3, **options)
    assert again[:3] == best[:3]
    assert len(again.run_summary.trials) == 4


def test_a_caught_failure_counts(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"

    def space(trial: Any) -> dict[str, Any]:
        if trial.number == 0:
            raise ValueError("never right")
        return rates(trial)

    options = {"storage": path, "study_name": "small", "load_if_exists": True, "catch": (ValueError,)}
    for _ in range(2):
        best = searching(tmp_path).hyperparameter_search(space, n_trials=2, **options)

    assert [trial.state.name for trial in best.run_summary.trials] == ["FAIL", "COMPLETE"]


def test_a_study_is_not_taken_over_unasked(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    options = {"storage": path, "study_name": "small"}
    searching(tmp_path).hyperparameter_search(rates, n_trials=1, **options)

    with pytest.raises(ArgumentError, match=r"holds a study named 'small' already. Write load_if_exists=True"):
        searching(tmp_path).hyperparameter_search(rates, n_trials=1, **options)
    with pytest.raises(ArgumentError, match=r"has the direction \['minimize'\], and the search \['maximize'\]"):
        searching(tmp_path).hyperparameter_search(
            rates, n_trials=1, direction="maximize", load_if_exists=True, **options
        )


def test_a_storage_is_a_path_an_url_or_one_of_optuna(tmp_path: Path) -> None:
    memory = optuna.storages.InMemoryStorage()

    assert open_storage(None) is None
    assert open_storage(memory) is memory
    assert open_storage("postgresql://somewhere") == "postgresql://somewhere"
    assert type(open_storage(f"sqlite:///{tmp_path}/s.db")).__name__ == "RDBStorage"
    assert type(open_storage(tmp_path / "s.sqlite3")).__name__ == "RDBStorage"
    assert type(open_storage(str(tmp_path / "new" / "s.log"))).__name__ == "JournalStorage"
