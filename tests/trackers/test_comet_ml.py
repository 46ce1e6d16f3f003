"""Comet offline: what its archives hold."""

import json
import zipfile

import pytest

pytest.importorskip("comet_ml", reason="needs comet-ml: make test-trackers")

from surestep.callbacks.trackers.entries import rewrite_logs
from tests.trackers.harness import KILLED, assert_no_network, assert_once, curves_of, expected, run


@pytest.fixture
def offline(tmp_path):
    return {"COMET_START_ONLINE": "false", "COMET_OFFLINE_DIRECTORY": str(tmp_path / "comet")}


def renamed(name):
    return next(iter(rewrite_logs({name: 0})))


def messages(folder):
    for archive in sorted((folder / "comet").glob("*.zip"), key=lambda file: file.stat().st_mtime):
        with zipfile.ZipFile(archive) as opened:
            if "messages.json" not in opened.namelist():
                continue
            for line in opened.read("messages.json").splitlines():
                yield json.loads(line)


def points(folder):
    for message in messages(folder):
        if message["type"] == "metric_msg":
            metric = message["payload"]["metric"]
            if metric["metricName"].startswith(("train/", "eval/")):
                yield metric["metricName"], metric["step"], float(metric["metricValue"])


def test_a_run_is_written_as_it_was_logged(tmp_path, offline):
    run(tmp_path, "comet_ml", env=offline, eval_strategy="steps", eval_steps=4, run_name="mine")
    wanted = {renamed(name): found for name, found in expected(tmp_path).items()}
    assert_once(curves_of(points(tmp_path)), wanted, exact=renamed)
    assert "args|max_steps" in json.dumps(list(messages(tmp_path)))
    # The address at which a cloud tells a machine about itself; it leads nowhere else.
    assert_no_network(tmp_path, but="169.254.169.254")


# Comet writes an archive when a process ends: one that is killed leaves nothing.
@pytest.mark.parametrize("ending", [{"expect": 1, "fail_at": 8}, {"expect": KILLED, "kill_at": 8}])
def test_a_training_that_broke_off_goes_on_in_its_experiment(tmp_path, offline, ending):
    settings = {"env": offline, "eval_strategy": "steps", "eval_steps": 4}
    run(tmp_path, "comet_ml", **ending, **settings)
    run(tmp_path, "comet_ml", resume=True, **settings)
    archives = [file.name.partition("-")[0] for file in (tmp_path / "comet").glob("*.zip")]
    assert len(archives) == 2
    assert len(set(archives)) == 1
    wanted = {renamed(name): found for name, found in expected(tmp_path).items()}
    assert_once(curves_of(points(tmp_path)), wanted, exact=renamed)


def test_no_account_is_said_before_the_first_step(tmp_path):
    printed = run(tmp_path, "comet_ml", expect=1, env={"HOME": str(tmp_path), "COMET_API_KEY": ""})
    assert "TrackerError: comet_ml: no run can be opened." in printed
    assert "COMET_START_ONLINE=false" in printed


def test_a_mode_that_comet_does_not_have_is_refused(tmp_path, offline):
    printed = run(tmp_path, "comet_ml", expect=1, env={**offline, "COMET_MODE": "append"})
    assert "COMET_MODE is 'append'. Write one of get, get_or_create, create." in printed
