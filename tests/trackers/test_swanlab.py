"""SwanLab offline: what its own files hold."""

import pytest

pytest.importorskip("swanlab", reason="needs swanlab: make test-trackers")

from surestep.callbacks.trackers.entries import SUMMARY, rewrite_logs
from surestep.callbacks.trackers.recordlog import record_log
from tests.trackers.harness import KILLED, assert_no_network, assert_once, curves_of, expected, run, script

OFFLINE = {"SWANLAB_MODE": "offline"}


def renamed(name):
    return f"single_value/{name}" if name in SUMMARY else next(iter(rewrite_logs({name: 0})))


def files(folder):
    return sorted((folder / "swanlog").glob("run-*/run-*.swanlab"))


def curves(folder):
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record

    records = [
        Record.FromString(content) for file in files(folder) if file.stat().st_size for content in record_log(file)
    ]
    points = [record.scalar for record in records if record.HasField("scalar")]
    found = curves_of((point.key, point.step, point.value.number) for point in points)
    del found["train/global_step"]
    return found


def wanted(folder):
    """Return the curves of the log, with one value for each step."""
    return {renamed(name): list(dict(points).items()) for name, points in expected(folder).items()}


def test_a_run_is_written_as_it_was_logged(tmp_path):
    run(tmp_path, "swanlab", env=OFFLINE, eval_strategy="steps", eval_steps=4, run_name="mine")
    assert_once(curves(tmp_path), wanted(tmp_path), exact=renamed)
    [file] = files(tmp_path)
    assert "model_num_parameters" in (file.parent / "files" / "config.yaml").read_text()
    assert_no_network(tmp_path)


@pytest.mark.parametrize(("steps", "save", "kill"), [(12, 5, 8), (60, 10, 55)])
def test_a_killed_run_goes_on_with_every_step_once(tmp_path, steps, save, kill):
    settings = {"env": OFFLINE, "max_steps": steps, "save_steps": save, "eval_strategy": "steps", "eval_steps": 4}
    run(tmp_path, "swanlab", expect=KILLED, kill_at=kill, wait=1.0, **settings)
    run(tmp_path, "swanlab", resume=True, **settings)
    assert_once(curves(tmp_path), wanted(tmp_path), exact=renamed)
    assert len(files(tmp_path)) == 2
    assert len({file.name for file in files(tmp_path)}) == 1


def test_an_entry_that_was_written_in_part_is_completed(tmp_path):
    settings = {"env": OFFLINE, "max_steps": 12, "save_steps": 5}
    run(tmp_path, "swanlab", expect=KILLED, kill_at=8, wait=1.0, **settings)
    # The end of a file that was being written: the epoch is the last that an entry has.
    (file,) = files(tmp_path)
    content = file.read_bytes()
    file.write_bytes(content[: content.rindex(b"train/epoch")])
    run(tmp_path, "swanlab", resume=True, **settings)
    assert_once(curves(tmp_path), wanted(tmp_path), exact=renamed)


def test_no_account_is_said_before_the_first_step(tmp_path):
    printed = run(tmp_path, "swanlab", expect=1, env={"SWANLAB_MODE": "cloud", "HOME": str(tmp_path)})
    assert "TrackerError: swanlab: no run can be opened." in printed
    assert "SWANLAB_MODE=offline" in printed


def test_a_run_of_the_scripts_own_is_used_and_left_open(tmp_path):
    script(
        tmp_path,
        """
        import swanlab
        mine = swanlab.init(project="own", mode="offline")
        trainer = train(report_to="swanlab")
        trainer.predict(trainer.eval_dataset)
        swanlab.log({"more": 1}, step=9)
        swanlab.finish()
        """,
    )
    found = curves(tmp_path)
    assert [step for step, _ in found["train/loss"]] == list(range(1, 9))
    assert [step for step, _ in found["test/loss"]] == [8]
    assert found["more"] == [(9, 1.0)]
