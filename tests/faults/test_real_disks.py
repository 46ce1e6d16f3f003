"""Disks that really are full, read-only or limited, and a folder that another process has: real processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from surestep.errors import CheckpointError
from tests.small import quick

ROOT = Path(__file__).resolve().parents[2]
MODULE = [sys.executable, "-W", "ignore", "-m", "tests.faults.on_disks"]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]), "OMP_NUM_THREADS": "1"}
Results = dict[str, dict[str, Any]]


def results(command: list[str]) -> Results:
    finished = subprocess.run(
        command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert finished.returncode == 0, finished.stderr
    found = [json.loads(line[7:]) for line in finished.stdout.splitlines() if line.startswith("RESULT ")]
    return {one["case"]: one for one in found}


def _own_mounts(disk: Path) -> list[str]:
    """Return how to begin a process that has mounts of its own and a small disk at `disk`, which go when it ends."""
    mount = f'mount -t tmpfs -o size=1m tmpfs "{disk}" && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Results:
    disk = tmp_path_factory.mktemp("disk")
    if shutil.which("unshare") is None:
        pytest.skip("this system has no unshare, so that no small disk can be mounted")
    begin = _own_mounts(disk)
    tried = subprocess.run(
        [*begin, "mount", "--bind", str(disk), str(disk)], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"no small disk can be mounted here: {tried.stderr.strip()}")
    return results([*begin, *MODULE, str(disk), "full,before", "full,within", "read-only,before", "refused"])


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results([*MODULE, str(tmp_path_factory.mktemp("limited")), "limited,before", "limited,within"])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Return the weights of a run on a disk without a fault."""
    trainer = quick(tmp_path_factory.mktemp("whole"), num_train_epochs=2)
    trainer.train()
    found: list[float] = trainer.model.layer.weight.flatten().tolist()
    return found


def assert_survived(found: dict[str, Any], weights: list[float], *said: str) -> None:
    assert found["step"] == 10
    assert found["weights"] == weights
    # Two saves while it was broken, of which nothing is left; then those that came after.
    assert len(found["told"]) == 2
    assert found["after"] == ["checkpoint-2"]
    assert found["there"] == ["checkpoint-10", "checkpoint-2", "checkpoint-8"]
    assert found["whole"]
    for text in said:
        assert text in found["told"][0]


def test_a_full_disk(mounted: Results, weights: list[float]) -> None:
    assert_survived(mounted["full,before"], weights, "so that it was not begun", "0 bytes are free there")


def test_a_disk_that_becomes_full_in_the_middle_of_a_save(mounted: Results, weights: list[float]) -> None:
    assert_survived(mounted["full,within"], weights, "[Errno 28] No space left on device", "Nothing of it is left")


def test_a_disk_that_becomes_read_only(mounted: Results, weights: list[float]) -> None:
    assert_survived(
        mounted["read-only,before"], weights, "[Errno 30] Read-only file system", "write another output_dir"
    )


def test_a_read_only_disk_is_told_before_the_first_step(mounted: Results) -> None:
    found = mounted["refused"]
    assert found["step"] == 0
    assert found["text"].startswith("SaveError: No checkpoint can be written to ")
    assert "Read-only file system" in found["text"]


def test_a_limit_on_files(limited: Results, weights: list[float]) -> None:
    assert_survived(limited["limited,before"], weights, "over the limit for files", "ulimit -f unlimited")


def test_a_limit_on_files_in_the_middle_of_a_save(limited: Results, weights: list[float]) -> None:
    assert_survived(limited["limited,within"], weights, "[Errno 27] File too large", "Nothing of it is left")


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [*MODULE, str(tmp_path), "hold"],
        env=ENVIRONMENT,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        line = next(line for line in holder.stdout if line.startswith("holding"))
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        second = quick(tmp_path, save_strategy="steps", save_steps=1)
        with pytest.raises(CheckpointError, match=rf"is being written to by process {line.split()[1]} on .*output_dir"):
            second.train()
        assert second.state.global_step == 0
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        holder.stdin.write("\n")
        holder.stdin.flush()
        last = next(line for line in holder.stdout if line.startswith("RESULT"))
    assert holder.returncode == 0
    assert json.loads(last[7:])["there"] == ["checkpoint-2", "checkpoint-4", "checkpoint-5"]
    second.train(resume_from_checkpoint=True)
