"""MLflow with a local store, and with a server on this machine that goes away."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest

pytest.importorskip("mlflow", reason="needs mlflow: make test-trackers")

from tests.trackers.harness import KILLED, assert_no_network, assert_once, curves_of, expected, run, script


@pytest.fixture
def store(tmp_path):
    return {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/store.db"}


def runs(folder, store, experiment="Default"):
    """Return the runs of an experiment, oldest first, as the client reads them."""
    reading = f"""
        import json, mlflow
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name({experiment!r})
        runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
        print("RUNS" + json.dumps([
            dict(
                name=run.info.run_name,
                status=run.info.status,
                params=run.data.params,
                tags=run.data.tags,
                points=[
                    (point.key, point.step, point.value)
                    for name in run.data.metrics
                    for point in client.get_metric_history(run.info.run_id, name)
                ],
                files=[file.path for file in client.list_artifacts(run.info.run_id, "checkpoint-5")],
            )
            for run in runs
        ]))
    """
    return json.loads(script(folder, reading, env=store).partition("RUNS")[2].splitlines()[0])


def curves(found):
    """Return the curves of a run, in the order of their steps; a point that is there twice is there twice."""
    return curves_of(sorted(found["points"], key=lambda point: point[1]))


def test_a_run_is_stored_as_it_was_logged(tmp_path, store):
    env = {**store, "MLFLOW_EXPERIMENT_NAME": "ours", "MLFLOW_TAGS": '{"release": "1"}', "MLFLOW_FLATTEN_PARAMS": "1"}
    run(tmp_path, "mlflow", env=env, eval_strategy="steps", eval_steps=4, run_name="mine")
    [found] = runs(tmp_path, store, "ours")
    assert_once(curves(found), expected(tmp_path))
    assert (found["name"], found["status"]) == ("mine", "FINISHED")
    assert found["params"]["max_steps"] == "12"
    assert found["params"]["accelerator_config.even_batches"] == "True"
    assert found["tags"]["release"] == "1"
    assert_no_network(tmp_path)


@pytest.mark.parametrize(("kill", "wait"), [(6, 0.0), (8, 0.0), (8, 1.0)])
def test_a_killed_run_goes_on_with_every_step_once(tmp_path, store, kill, wait):
    settings = {"env": store, "eval_strategy": "steps", "eval_steps": 4}
    run(tmp_path, "mlflow", expect=KILLED, kill_at=kill, wait=wait, **settings)
    run(tmp_path, "mlflow", resume=True, **settings)
    [found] = runs(tmp_path, store)
    assert_once(curves(found), expected(tmp_path))
    assert found["status"] == "FINISHED"


def test_an_entry_that_was_written_in_part_is_completed(tmp_path):
    """The store of files takes an entry value by value: a client that is killed leaves a part of one."""
    store = {"MLFLOW_TRACKING_URI": (tmp_path / "files").as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}
    settings = {"env": store, "eval_strategy": "steps", "eval_steps": 4}
    run(tmp_path, "mlflow", expect=KILLED, kill_at=8, wait=1.0, **settings)
    [epochs] = (tmp_path / "files").glob("0/*/metrics/epoch")
    lines = epochs.read_text().splitlines(keepends=True)
    epochs.write_text("".join(lines[:-1]))
    run(tmp_path, "mlflow", resume=True, **settings)
    [found] = runs(tmp_path, store)
    assert len(lines) == 10
    assert_once(curves(found), expected(tmp_path))


def test_what_changed_since_is_said_and_a_failed_training_is_a_failed_run(tmp_path, store):
    printed = run(tmp_path, "mlflow", env=store, expect=1, fail_at=7)
    assert "broken off on purpose" in printed
    [found] = runs(tmp_path, store)
    assert found["status"] == "FAILED"
    printed = run(tmp_path, "mlflow", env=store, resume=True, save_steps=6)
    assert "parameters left out: save_steps (it keeps the first value)" in printed
    [found] = runs(tmp_path, store)
    assert (found["status"], found["params"]["save_steps"]) == ("FINISHED", "5")
    assert_once(curves(found), expected(tmp_path))


def test_evaluations_and_a_second_training(tmp_path, store):
    script(
        tmp_path,
        """
        trainer = train(report_to="mlflow")
        trainer.evaluate()
        trainer.train()
        """,
        env=store,
    )
    first, second = runs(tmp_path, store)
    assert [step for step, _ in curves(first)["eval_loss"]] == [8]
    assert {first["status"], second["status"]} == {"FINISHED"}
    assert [step for step, _ in curves(second)["loss"]] == list(range(1, 9))


def test_a_run_of_the_scripts_own_is_used_and_left_open(tmp_path, store):
    script(
        tmp_path,
        f"""
        import mlflow
        mlflow.set_tracking_uri({store["MLFLOW_TRACKING_URI"]!r})
        with mlflow.start_run(run_name="own"):
            train(report_to="mlflow")
            mlflow.log_metric("more", 1.0)
        """,
    )
    [found] = runs(tmp_path, store)
    assert found["name"] == "own"
    assert {"loss", "more"} <= set(curves(found))


def test_checkpoints_are_artifacts(tmp_path, store):
    run(tmp_path, "mlflow", env={**store, "HF_MLFLOW_LOG_ARTIFACTS": "1"}, max_steps=5)
    [found] = runs(tmp_path, store)
    assert {"checkpoint-5/model.safetensors", "checkpoint-5/trainer_state.json"} <= set(found["files"])


def test_switched_off_by_the_environment(tmp_path, store):
    printed = run(tmp_path, "mlflow", expect=1, env={**store, "DISABLE_MLFLOW_INTEGRATION": "TRUE"})
    assert "DISABLE_MLFLOW_INTEGRATION is set" in printed


@contextmanager
def serving(folder, port):
    """Serve a store of this machine over HTTP."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/server.db"]
    server = subprocess.Popen(
        [*command, "--port", str(port), "--workers", "1"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(120):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    break
            except OSError:
                time.sleep(0.5)
        yield server
    finally:
        _stop(server)


def _stop(server):
    import os
    import signal

    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_a_server_that_goes_away_stops_no_training_and_gets_the_rest_when_the_run_is_resumed(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    store = {
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    }
    with serving(tmp_path, port) as server:
        printed = script(
            tmp_path,
            f"""
            import os, signal, time
            from pathlib import Path
            from surestep import TrainerCallback
            from surestep.callbacks.trackers.record import read_record

            def sent():
                record = read_record(Path("out"), "mlflow")
                return 0 if record is None else record.step

            class StopServer(TrainerCallback):
                def on_step_begin(self, args, state, control, **kwargs):
                    if state.global_step == 6:
                        deadline = time.monotonic() + 120
                        while sent() < 6 and time.monotonic() < deadline:
                            time.sleep(0.1)
                        os.killpg({server.pid}, signal.SIGKILL)

            program.Kill = lambda *_: StopServer()
            trainer = train(report_to="mlflow", max_steps=12)
            print("steps", trainer.state.global_step)
            """,
            env=store,
        )
    assert "steps 12" in printed
    assert "Training goes on" in printed
    assert "entries of the log, of steps 7 to 12" in printed
    with serving(tmp_path, port):
        run(tmp_path, "mlflow", env=store, resume=str(tmp_path / "out" / "checkpoint-10"))
        [found] = runs(tmp_path, store)
        assert_once(curves(found), expected(tmp_path))


def test_no_server_is_said_before_the_first_step(tmp_path):
    env = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    printed = run(tmp_path, "mlflow", expect=1, env=env)
    assert "TrackerError: mlflow: no run can be opened." in printed
    assert "MLFLOW_TRACKING_URI names the store" in printed
