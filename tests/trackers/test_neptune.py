"""Neptune offline: what its queue on disk holds."""

import json

import pytest

pytest.importorskip("neptune", reason="needs neptune: make test-trackers")

from surestep.callbacks.trackers.entries import rewrite_logs
from tests.trackers.harness import assert_no_network, assert_once, curves_of, expected, run

OFFLINE = {"NEPTUNE_MODE": "offline", "NEPTUNE_PROJECT": "mine/ours"}


def renamed(name):
    return next(iter(rewrite_logs({name: 0})))


def operations(folder):
    for file in sorted((folder / ".neptune" / "offline").rglob("data-*.log")):
        decoder, text = json.JSONDecoder(), file.read_text()
        position = 0
        while position < len(text.rstrip()):
            found, end = decoder.raw_decode(text, position)
            yield found["obj"]
            position = end + len(text[end:]) - len(text[end:].lstrip())


def test_a_run_is_written_as_it_was_logged(tmp_path):
    run(tmp_path, "neptune", env=OFFLINE, eval_strategy="steps", eval_steps=4)
    points = [
        ("/".join(operation["path"][1:]), int(value["step"]), value["value"])
        for operation in operations(tmp_path)
        if operation["type"] == "LogFloats" and operation["path"][0] == "finetuning"
        for value in operation["values"]
    ]
    wanted = {renamed(name): found for name, found in expected(tmp_path).items() if name != "epoch"}
    assert_once(curves_of(points), wanted, exact=renamed)
    assigned = {"/".join(operation["path"]) for operation in operations(tmp_path) if "Assign" in operation["type"]}
    assert {"finetuning/train/epoch", "finetuning/trainer_parameters/max_steps"} <= assigned
    assert_no_network(tmp_path)


def test_no_account_is_said_before_the_first_step(tmp_path):
    printed = run(tmp_path, "neptune", expect=1, env={"HOME": str(tmp_path)})
    assert "TrackerError: neptune: no run can be opened." in printed
    assert "NEPTUNE_MODE=offline" in printed


# Where nothing is saved when a training breaks off, the steps since its last checkpoint are made again.
@pytest.mark.parametrize(("saves", "repeated"), [(True, []), (False, [6, 7, 8])])
def test_a_training_that_broke_off_offline_goes_on_in_a_run_of_its_own(tmp_path, saves, repeated):
    run(tmp_path, "neptune", env=OFFLINE, expect=1, fail_at=8, save_on_exception=saves)
    printed = run(tmp_path, "neptune", env=OFFLINE, resume=True)
    assert "neptune was not sent" not in printed
    folders = list((tmp_path / ".neptune" / "offline").iterdir())
    assert len(folders) == 2
    steps = sorted(
        int(value["step"])
        for operation in operations(tmp_path)
        if operation["type"] == "LogFloats" and operation["path"][1:] == ["train", "loss"]
        for value in operation["values"]
    )
    assert steps == sorted([*range(1, 13), *repeated])
