"""surestep run with a search: the example from beginning to end, its plan, and ends from the outside."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import EXAMPLES, Ended, results, wait_for
from tests.warm import Process

Run = Callable[..., Ended]
Begin = Callable[..., Process]
SEARCH = EXAMPLES / "messages-search.yaml"
SHORT = ("search.n_trials=3", "arguments.num_train_epochs=5", "search.pruner=none")


def test_the_example_finds_good_settings_and_keeps_their_model(here: Run, tmp_path: Path) -> None:
    done = here("run", SEARCH, *SHORT)
    assert done.code == 0, done.err
    folder = tmp_path / "runs" / "messages-search"
    found = results(folder)
    best = found["search"]["trials"][0]
    assert best["objective"] > 0.9
    assert found["scores"]["validation"]["metrics"]["macro_f1"] == pytest.approx(best["objective"])
    assert (folder / "model" / "model.safetensors").is_file()
    assert f"the best is {best['trial']}" in done.out
    assert f"{best['trial']} {best['objective']:.4f} learning_rate=" in " ".join(done.out.split())
    assert "Written to runs/messages-search: model/, results.json, job.json, search/" in done.out
    assert "run-0: learning_rate=" in done.err

    again = here("run", SEARCH, *SHORT)
    assert "This run is complete." in again.err
    assert done.out.endswith(again.out)


def test_the_plan_shows_the_search_and_writes_nothing(here: Run, tmp_path: Path) -> None:
    shown = here("run", SEARCH, "search.timeout=60", "--dry-run")
    assert shown.code == 0, shown.err
    for text in (
        "12 trials, 60 s at most (optuna, tpe, pruner median), the highest macro_f1 is the best",
        "learning_rate: 0.0001 to 0.01, log",
        "per_device_train_batch_size: 8, 16, 32",
        "model.dropout: 0 to 0.4",
        "(would begin)",
    ):
        assert text in " ".join(shown.out.split())
    assert list(tmp_path.iterdir()) == []
    refused = here("run", SEARCH, "search.space.learning_rate.low=-1", "--dry-run")
    assert (refused.code, "has no logarithm" in refused.err) == (2, True)


def test_a_search_that_was_ended_goes_on(surestep: Run, here: Run, begin: Begin, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "messages-search"
    process = begin("run", SEARCH, *SHORT)
    wait_for(folder / "search" / "run-1" / "checkpoint-9", process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "The run stays in runs/messages-search. The same command goes on." in said
    assert "would go on with its search, 2 trials were begun" in " ".join(here("plan", SEARCH, *SHORT).out.split())

    again = surestep("run", SEARCH, *SHORT)
    assert again.code == 0, again.err
    trials = results(folder)["search"]["trials"]
    assert sorted(trial["trial"] for trial in trials) == ["run-0", "run-2", "run-3"]
    assert "run-2: learning_rate=" in again.err
    assert "going on from step" in again.err
