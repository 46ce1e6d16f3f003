"""SIGKILL at random moments of a run that sends its checkpoints away, its machine lost each time: the URL is enough."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

import pytest

from surestep.checkpoint.remote import RemoteStore
from surestep.runtime.remote_folder import RemoteFolder
from tests.faults.runs import ROWS, STEPS, TRACE
from tests.faults.stage import Stage
from tests.faults.test_killed import _OF_ITS_OWN, log, micro_batches, said, state
from tests.unit.checkpoint.remote_stores import whole


class Machines:
    """Trains on one machine after the other, each killed and lost with its disk, until the run comes to its end."""

    def __init__(self, stage: Stage, root: Path, seed: int) -> None:
        self.stage, self.root, self.random = stage, root, random.Random(seed)
        self.kills = self.runs = 0
        # How many of the kills left something half-sent.
        self.halves = 0

    def until(self, kills: int) -> None:
        while self.kills < kills:
            row = list(ROWS)[self.runs % len(ROWS)]
            self.runs += 1
            self._run_to_its_end(row, self.root / f"{row}-{self.runs}", kills)

    def _run_to_its_end(self, row: str, folder: Path, kills: int) -> None:
        bucket = folder.with_name(f"{folder.name}-bucket")
        store = RemoteStore(RemoteFolder(f"file://{bucket}", "save_remote"))
        newest = -1
        while True:
            code = self._train(row, folder, bucket, self.random.uniform(0.0, 4.0) if self.kills < kills else None)
            found = whole(store)
            step = max((int(name.split("-")[1]) for name in found), default=-1)
            assert step >= newest, (step, newest, said(folder))
            newest = step
            if code == 0:
                break
            assert code == -signal.SIGKILL, said(folder)
            self.kills += 1
            self.halves += len(found) < len(store.names())
            self._lose(folder)
        self._compare(row, folder, bucket)

    def _train(self, row: str, folder: Path, bucket: Path, kill_after: float | None) -> int:
        folder.mkdir(parents=True, exist_ok=True)
        case = {"row": row, "remote": f"file://{bucket}"}
        self.stage.ask(folder, program="runs", case=case, kill_after=kill_after)
        return self.stage.answer()[0]

    def _lose(self, folder: Path) -> None:
        """Remove all that the machine had but what the test itself wrote down."""
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != TRACE and not path.name.startswith("said"):
                path.unlink()

    def _compare(self, row: str, folder: Path, bucket: Path) -> None:
        """Compare what is at the URL, the log and every micro-batch with those of a run that was left alone."""
        alone = self.root / f"{row}-alone"
        if not alone.exists():
            assert self.stage.train(row, alone) == 0, said(alone)
        names = sorted(path.name for path in alone.glob("checkpoint-*"))
        assert sorted(path.name for path in bucket.glob("checkpoint-*")) == names
        assert f"checkpoint-{STEPS}" in names
        for path in alone.glob("checkpoint-*/*"):
            other = bucket / path.relative_to(alone)
            if path.name not in _OF_ITS_OWN:
                assert other.read_bytes() == path.read_bytes(), other
            elif path.name == "trainer_state.json":
                assert state(other) == state(path), other
        # Beside a training that goes on, when a save was told is a matter of time.
        logs = [log(one, saves=row != "beside") for one in (folder, bucket)]
        assert logs == [log(alone, saves=row != "beside")] * 2
        assert micro_batches(folder) == micro_batches(alone)


def test_six_machines_lost_change_nothing(stage: Stage, tmp_path: Path) -> None:
    machines = Machines(stage, tmp_path, 7)
    machines.until(6)
    assert machines.runs >= 1


@pytest.mark.soak
def test_a_hundred_machines_lost_change_nothing(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machines = Machines(stage, tmp_path, 8)
    machines.until(100)
    with capsys.disabled():
        print(f"\n{machines.kills} kills of {machines.runs} runs; {machines.halves} left a checkpoint half-sent")
