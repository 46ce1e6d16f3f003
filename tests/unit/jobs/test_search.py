"""Jobs that search: real trials, the model that is kept, restarts, and what is refused before any work."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.unit.jobs.test_plan import EXAMPLES

from surestep.callbacks.flow import DefaultFlowCallback
from surestep.errors import JobError, SearchError
from surestep.jobs.assemble import assemble
from surestep.jobs.bounds import is_whole
from surestep.jobs.job import Job, make_job
from surestep.jobs.run import Outcome, Request, run_job
from surestep.tasks.saved import load_classifier

ARGUMENTS = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 16,
    "logging_steps": 50,
    "disable_tqdm": True,
    "report_to": "none",
    "save_strategy": "no",
}
SPACE = {"learning_rate": {"low": 1e-3, "high": 3e-2, "log": True}}


def job(output: Path, search: dict[str, Any] | None = None, **arguments: Any) -> Job:
    declared = {
        "task": {"name": "text_classification", "max_length": 16},
        "data": {"source": "messages.csv", "validation": 0.2},
        "model": {"dim": 16, "num_layers": 1, "dropout": 0.0},
        "output_dir": str(output),
        "arguments": ARGUMENTS | arguments,
        "search": {"space": SPACE, "n_trials": 3, "sampler": "random", "seed": 1, "pruner": "none", **(search or {})},
    }
    return make_job(declared, "small")


class Said(list[str]):
    """What a run said."""

    def run(self, job: Job, **more: Any) -> Outcome:
        return run_job(Request(job, EXAMPLES, self.append, self.append, **more))


@pytest.mark.parametrize("keeping", [{}, {"save_strategy": "epoch", "eval_strategy": "epoch"}])
def test_the_best_trial_is_kept_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, keeping: dict[str, Any]
) -> None:
    space = {"model_space": {"dim": {"choices": [8, 16, 32]}, "dropout": {"low": 0.0, "high": 0.5}}}
    said = Said()
    results = said.run(job(tmp_path / "run", space, **keeping)).results

    search = results["search"]
    assert (search["metric"], search["direction"], len(search["trials"])) == ("accuracy", "maximize", 3)
    best = search["trials"][0]
    assert best["trial"] == search["best"]
    assert best["objective"] == max(trial["objective"] for trial in search["trials"])
    assert best["values"].keys() == {"learning_rate", "model.dim", "model.dropout"}
    # The model that is kept is that of the trial, dropout and all, and says which sizes it has.
    assert results["scores"]["validation"]["metrics"]["accuracy"] == pytest.approx(best["objective"])
    assert (f"{best['trial']}' is complete" in caplog.text) is bool(keeping)
    card = json.loads((tmp_path / "run" / "model" / "classifier.json").read_text())
    assert (card["model"]["dim"], card["model"]["dropout"]) == (
        best["values"]["model.dim"],
        best["values"]["model.dropout"],
    )
    assert load_classifier(tmp_path / "run" / "model").predict(["your parcel"])[0].label in results["labels"]
    assert sum("accuracy 0." in line for line in said) == 3
    assert f"the best so far is {search['best']}" in said[-1]


def test_a_trial_is_the_run_of_a_job_with_its_values(tmp_path: Path) -> None:
    search = Said().run(job(tmp_path / "search", {"n_trials": 1, "metric": "loss"})).results["search"]
    rate = search["trials"][0]["values"]["learning_rate"]
    alone = make_job(
        job(tmp_path / "alone", learning_rate=rate).model_dump(exclude_unset=True, exclude={"search"}), "x"
    )
    results = Said().run(alone).results

    assert search["direction"] == "minimize"
    assert results["scores"]["validation"]["metrics"]["loss"] == pytest.approx(search["trials"][0]["objective"])


def test_whole_numbers_are_drawn_for_what_is_whole(tmp_path: Path) -> None:
    space = {
        "gradient_accumulation_steps": {"low": 1, "high": 3},
        "weight_decay": {"low": 0, "high": 1},
        "num_train_epochs": {"low": 1, "high": 2, "step": 1},
    }
    found = Said().run(job(tmp_path, {"space": space, "model_space": {"num_layers": {"low": 1, "high": 2}}}))
    values = [trial["values"] for trial in found.results["search"]["trials"]]

    for name, kind in {
        "gradient_accumulation_steps": int,
        "weight_decay": float,
        "num_train_epochs": int,
        "model.num_layers": int,
    }.items():
        assert {type(one[name]) for one in values} == {kind}
    assert any(one["weight_decay"] not in (0, 1) for one in values)


def test_a_search_goes_on_where_a_signal_ended_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Said().run(job(tmp_path / "whole", save_strategy="epoch")).results["search"]

    begun: list[str] = []
    before = DefaultFlowCallback.on_step_end

    def interrupted(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if state.trial_name == "run-1" and state.global_step == 12 and not begun:
            begun.append(state.trial_name)
            os.kill(os.getpid(), signal.SIGTERM)
        return before(self, args, state, control, **kwargs)

    monkeypatch.setattr(DefaultFlowCallback, "on_step_end", interrupted)
    said = Said()
    broken = job(tmp_path / "broken", save_strategy="epoch")
    first = said.run(broken)
    assert (first.signal_number, first.results) == (signal.SIGTERM, {})
    assert not (tmp_path / "broken" / "results.json").exists()

    search = said.run(broken).results["search"]
    assert any(line.startswith("run-2: ") and "going on from step 12" in line for line in said)
    # The one that was cut off is not counted again, and came to what it would have come to.
    objectives = {trial["values"]["learning_rate"]: trial["objective"] for trial in search["trials"]}
    assert len(objectives) == 3
    for trial in whole["trials"]:
        rate = trial["values"]["learning_rate"]
        assert rate not in objectives or objectives[rate] == trial["objective"]
    second = next(one for one in whole["trials"] if one["trial"] == "run-1")["values"]["learning_rate"]
    assert second in objectives


def test_changes_that_are_accepted_hold_for_trials(tmp_path: Path) -> None:
    Said().run(job(tmp_path, {"n_trials": 1}, save_strategy="epoch"))
    changed = job(tmp_path, {"n_trials": 1}, optim="sgd", num_train_epochs=3, save_strategy="epoch")
    results = Said().run(changed, accept_changes=True).results

    # The best trial goes on from where it ended, with what is declared now.
    assert (results["resumed_from_step"], results["steps"]) == (24, 36)


def test_a_complete_search_is_shown_and_goes_on_with_more_trials(tmp_path: Path) -> None:
    said = Said()
    first = said.run(job(tmp_path))
    assert said.run(job(tmp_path)).was_complete
    with pytest.raises(JobError, match=r"search\.n_trials: 3 there, 5 now"):
        said.run(job(tmp_path, {"n_trials": 5}))
    more = said.run(job(tmp_path, {"n_trials": 5}), accept_changes=True).results["search"]

    assert len(more["trials"]) == 5
    known = {trial["trial"]: trial for trial in more["trials"]}
    assert all(known[trial["trial"]] == trial for trial in first.results["search"]["trials"])


def test_values_that_fail_are_trials_that_failed(tmp_path: Path) -> None:
    space = {"space": {}, "model_space": {"dim": {"choices": [6, 8]}, "num_heads": {"choices": [2, 4]}}}
    # Six cannot be divided among four: it is the two together that fail.
    search = Said().run(job(tmp_path, {**space, "n_trials": 6}, num_train_epochs=1)).results["search"]

    for trial in search["trials"]:
        fits = trial["values"]["model.dim"] % trial["values"]["model.num_heads"] == 0
        assert trial["state"] == ("complete" if fits else "fail")
    assert {trial["state"] for trial in search["trials"]} == {"complete", "fail"}


def test_trials_are_compared_by_the_model_that_is_kept(tmp_path: Path) -> None:
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "save_total_limit": 2}
    both = {"save_strategy": "epoch", "eval_strategy": "epoch", "lr_scheduler_type": "constant", **best}
    # So fast that the second epoch is the worse one.
    space = {"space": {"learning_rate": {"choices": [0.1, 0.1000001]}}, "n_trials": 1}
    results = Said().run(job(tmp_path, space, **both)).results

    log = json.loads((tmp_path / "search" / "run-0" / "checkpoint-24" / "trainer_state.json").read_text())
    first, second = (entry["eval_loss"] for entry in log["log_history"] if "eval_loss" in entry)
    assert first < second
    assert results["search"]["trials"][0]["objective"] == first
    assert results["scores"]["validation"]["metrics"]["loss"] == pytest.approx(first)


REFUSED = [
    ({"space": {"learning_rat": {"low": 1, "high": 2}}}, {}, "Did you mean learning_rate?"),
    ({"space": {"learning_rate": {"low": -1.0, "high": 1.0}}}, {}, "search: learning_rate with -1.0: arguments: "),
    ({"space": {"optim": {"choices": ["sgd", "sdg"]}}}, {}, "search: optim with 'sdg': "),
    ({"space": {"max_steps": {"low": 1.5, "high": 9}}}, {}, "max_steps is a whole number, and 1.5 to 9 is not"),
    ({"space": {"seed": {"low": 1, "high": 9, "step": 0.5}}}, {}, "seed is a whole number"),
    ({"space": {"do_train": {"choices": [True, False]}}}, {}, "arguments.do_train has no place in a job"),
    ({"space": {"output_dir": {"choices": ["a", "b"]}}}, {}, "leave the second out"),
    ({"model_space": {"num_heads": {"choices": [2, 3]}}}, {}, "search: model.num_heads with 3: "),
    ({"pruner": "median"}, {"eval_strategy": "no"}, "write arguments.eval_strategy=epoch"),
]


@pytest.mark.parametrize(("search", "arguments", "said"), REFUSED, ids=[said[:40] for *_, said in REFUSED])
def test_what_cannot_be_searched_is_said_before_any_work(
    tmp_path: Path, search: dict[str, Any], arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(JobError) as caught:
        Said().run(job(tmp_path / "run", search, **arguments))

    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_sizes_that_no_model_can_have_are_told_before_any_work(tmp_path: Path) -> None:
    declared = {
        "task": "image_classification",
        "data": {"source": "sklearn:digits", "validation": 0.2},
        "search": {"model_space": {"num_stages": {"low": 1, "high": 9}}},
    }
    with pytest.raises(JobError, match=r"search: model\.num_stages with 9: .*write at most 4"):
        assemble(make_job(declared, "x"), EXAMPLES)


def test_a_study_that_is_gone_or_of_other_choices_is_told(tmp_path: Path) -> None:
    def choosing(*choices: str) -> Job:
        return job(tmp_path, {"space": {"optim": {"choices": [*choices]}}, "n_trials": 1})

    Said().run(choosing("sgd", "adamw_torch"))
    more = job(tmp_path, {"space": {"optim": {"choices": ["sgd", "adafactor"]}}, "n_trials": 2})
    with pytest.raises(SearchError, match=r"chose optim among others than sgd, adafactor"):
        Said().run(more, accept_changes=True)
    (tmp_path / "search" / "study.db").unlink()
    with pytest.raises(JobError, match=r"holds trials, and their study '.*study\.db' is gone"):
        Said().run(more, accept_changes=True)


def test_a_study_may_be_kept_elsewhere(tmp_path: Path) -> None:
    storage = tmp_path / "elsewhere" / "all.db"
    elsewhere = job(tmp_path / "run", {"storage": str(storage), "n_trials": 1})
    said = Said()
    said.run(elsewhere)
    again = said.run(elsewhere, fresh=True)

    with sqlite3.connect(storage) as studies:
        assert studies.execute("SELECT study_name FROM studies").fetchall() == [("small",)]
    assert any("is outside of the run's folder, and goes on" in line for line in said)
    assert len(again.results["search"]["trials"]) == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [("seed", True), ("max_steps", True), ("eval_delay", False), ("learning_rate", False), ("model.dim", True)],
)
def test_which_settings_are_whole(tmp_path: Path, name: str, expected: bool) -> None:
    assert is_whole(job(tmp_path), name) is expected
