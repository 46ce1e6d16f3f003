"""A rank that fails alone in a step: the others end too, at once, with its error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.launch import ROOT, launch

# Ranks that wait for one that is gone would do so for half an hour.
SECONDS = 200


@pytest.mark.parametrize("failing", [0, 1])
def test_the_other_rank_ends_with_the_error(tmp_path: Path, failing: int) -> None:
    ranks = launch("tests.distributed.failing", 2, tmp_path, str(failing), "2", seconds=SECONDS)
    own, other = ranks[failing], ranks[1 - failing]

    assert (own["kind"], own["text"]) == ("ValueError", "a bad sample")
    named = (other["kind"], other["text"]) == ("RankError", f"Rank {failing} has failed: ValueError: a bad sample")
    # Without torchrun rank 0 keeps the store, which may be gone before the other has looked.
    assert named or (failing == 0 and any(note.startswith("Rank 0, which keeps") for note in other["notes"]))


def under_torchrun(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    return subprocess.run(
        [*command, "-m", "tests.distributed.failing", str(folder), "0", "3", *arguments],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_all_ranks_of_torchrun_end_with_the_error(tmp_path: Path) -> None:
    ended = under_torchrun(tmp_path)

    assert ended.returncode == 1
    assert "ValueError: a bad sample" in ended.stderr
    assert ended.stderr.count("RankError: Rank 0 has failed: ValueError: a bad sample") == 2


def test_a_rank_that_is_killed_ends_the_others_and_that_is_said(tmp_path: Path) -> None:
    ended = under_torchrun(tmp_path, "killed")

    assert ended.returncode == 1
    assert "Signal 9 (SIGKILL)" in ended.stderr
    assert "One that was killed, as a rule for want of memory, leaves none" in ended.stderr
