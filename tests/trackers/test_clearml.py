"""ClearML offline: what its session folders hold."""

import json

import pytest

pytest.importorskip("clearml", reason="needs clearml: make test-trackers")

from surestep.callbacks.trackers.entries import SUMMARY
from tests.trackers.harness import assert_no_network, assert_once, curves_of, expected, run


@pytest.fixture
def offline(tmp_path):
    return {"CLEARML_OFFLINE_MODE": "1", "CLEARML_CACHE_DIR": str(tmp_path / "cache"), "HOME": str(tmp_path)}


def events(folder):
    for file in sorted(folder.rglob("metrics.jsonl"), key=lambda file: file.stat().st_mtime):
        for line in file.read_text().splitlines():
            yield from json.loads(line)


def renamed(name):
    return name if "/" in name else f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}"


def test_a_run_is_written_as_it_was_logged(tmp_path, offline):
    run(tmp_path, "clearml", env={**offline, "CLEARML_LOG_MODEL": "0"}, eval_strategy="steps", eval_steps=4)
    points = [
        (f"{event['metric']}/{event['variant']}", event["iter"], event["value"])
        for event in events(tmp_path)
        if event["metric"] in {"train", "eval"}
    ]
    single = {*SUMMARY, "epoch"}
    wanted = {renamed(name): found for name, found in expected(tmp_path).items() if name not in single}
    assert_once(curves_of(sorted(points, key=lambda point: point[1])), wanted, exact=renamed)
    assert single <= {event["variant"] for event in events(tmp_path) if event["metric"] == "Summary"}
    [task] = [json.loads(file.read_text()) for file in tmp_path.rglob("task.json")]
    assert (task["project_name"] if "project_name" in task else task["name"]) in {"HuggingFace Transformers", "Trainer"}
    parameters = json.dumps(task)
    assert "max_steps" in parameters
    # The address at which a cloud tells a machine about itself; it leads nowhere else.
    assert_no_network(tmp_path, but="169.254.169.254")


def test_no_account_is_said_before_the_first_step(tmp_path):
    printed = run(tmp_path, "clearml", expect=1, env={"HOME": str(tmp_path)})
    assert "TrackerError: clearml: no run can be opened." in printed
    assert "CLEARML_OFFLINE_MODE=1" in printed


def test_a_training_that_broke_off_goes_on_in_its_task(tmp_path, offline):
    run(tmp_path, "clearml", env=offline, expect=1, fail_at=8)
    printed = run(tmp_path, "clearml", env=offline, resume=True)
    assert "clearml was not sent" not in printed
    points = [event for event in events(tmp_path) if (event["metric"], event["variant"]) == ("train", "loss")]
    assert [event["iter"] for event in points] == list(range(1, 13))
    assert len({event["task"] for event in points}) == 1
