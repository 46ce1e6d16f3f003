"""Trackio on this machine."""

import pytest

pytest.importorskip("trackio", reason="needs trackio: make test-trackers")

from surestep.callbacks.trackers.entries import SUMMARY, rewrite_logs
from tests.trackers.harness import KILLED, assert_no_network, assert_once, curves_of, expected, run, script


@pytest.fixture
def store(tmp_path):
    return {"TRACKIO_DIR": str(tmp_path / "trackio")}


def renamed(name):
    return next(iter(rewrite_logs({name: 0})))


def wanted(folder):
    return {renamed(name): points for name, points in expected(folder).items() if name not in SUMMARY}


def rows(folder, store, project="huggingface"):
    """Return the runs of a project, as Trackio reads them: name, configuration and rows."""
    reading = f"""
        import json
        from trackio import Api
        from trackio.sqlite_storage import SQLiteStorage
        runs = []
        for run in Api().runs({project!r}):
            logs = SQLiteStorage.get_logs({project!r}, run.name, run_id=run.id)
            runs.append([run.name, run.config, logs])
        print("RUNS" + json.dumps(runs, default=str))
    """
    import json

    printed = script(folder, reading, env=store)
    return json.loads(printed.partition("RUNS")[2].splitlines()[0])


def curves(found):
    return curves_of(
        (name, row["step"], value)
        for row in found
        for name, value in row.items()
        if name not in {"step", "timestamp", "train/global_step"}
    )


def test_a_run_is_stored_as_it_was_logged(tmp_path, store):
    run(tmp_path, "trackio", env=store, eval_strategy="steps", eval_steps=4, run_name="mine", project="ours")
    [[name, config, found]] = rows(tmp_path, store, "ours")
    assert name == "mine"
    assert (config["max_steps"], config["model/num_parameters"]) == (12, 4)
    assert_once(curves(found), wanted(tmp_path), exact=renamed)
    assert all(row["step"] == row["train/global_step"] for row in found)
    assert_no_network(tmp_path)


@pytest.mark.parametrize(("kill", "wait"), [(6, 0.0), (8, 0.0), (8, 2.0)])
def test_a_killed_run_goes_on_with_every_step_once(tmp_path, store, kill, wait):
    settings = {"env": store, "eval_strategy": "steps", "eval_steps": 4}
    run(tmp_path, "trackio", expect=KILLED, kill_at=kill, wait=wait, **settings)
    run(tmp_path, "trackio", resume=True, **settings)
    [[_, _, found]] = rows(tmp_path, store)
    assert_once(curves(found), wanted(tmp_path), exact=renamed)


def test_evaluations_and_predictions_after_the_training_are_in_the_same_run(tmp_path, store):
    script(
        tmp_path,
        """
        trainer = train(report_to="trackio")
        trainer.evaluate()
        trainer.predict(trainer.eval_dataset)
        """,
        env=store,
    )
    [[_, _, found]] = rows(tmp_path, store)
    assert [step for step, _ in curves(found)["eval/loss"]] == [8]
    assert [step for step, _ in curves(found)["test/loss"]] == [8]
