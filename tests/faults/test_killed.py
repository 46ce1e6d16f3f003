"""SIGKILL at random moments of a run that saves at every step: it goes on each time, and ends as if left alone."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from surestep.callbacks.trackers.jsonl import LOG_NAME, read_log
from tests.faults.runs import AT_ONCE, ROWS, STEPS, TRACE
from tests.faults.stage import SAID, Stage
from tests.parity.compare import CLOCK

# What differs between two runs though they train the same: times, the name of the run, its folder.
_OF_ITS_OWN = {"manifest.json", "origin.json", "train_log.json", "trainer_state.json", "training_args.json"}


@dataclass
class Tries:
    """Kills runs until there were enough kills, and compares each run that came to its end with one left alone."""

    stage: Stage
    root: Path
    random: random.Random
    kills: int = 0
    begun: int = 0
    finished: int = 0
    after: dict[str, int] = field(default_factory=dict)

    def until(self, kills: int, rows: Sequence[str] = AT_ONCE) -> None:
        """Kill so many times, run after run, row after row."""
        while self.kills < kills:
            row = rows[self.begun % len(rows)]
            self.begun += 1
            reference = self._reference(row)
            folder = self.root / f"{row}-{self.begun}"
            # An even chance to be killed here or there, from the first import to past the end.
            while self.kills < kills and not self._attempt(row, folder, self.random.uniform(0.0, 1.2)):
                pass
            self._finish(row, folder)
            compare(reference, folder, saves=row != "beside")
            self.finished += 1

    def _attempt(self, row: str, folder: Path, seconds: float) -> bool:
        """Train until killed; say whether the run came to its end before."""
        code = self.stage.train(row, folder, seconds)
        killed = code == -signal.SIGKILL
        assert killed or code == 0, said(folder)
        self.kills += killed
        self._sound(folder)
        return not killed

    def _finish(self, row: str, folder: Path) -> None:
        """Let the run come to its end, and start it once more: then there is nothing to do."""
        assert self.stage.train(row, folder) == 0, said(folder)
        before = (folder / TRACE).read_bytes(), (folder / LOG_NAME).read_bytes()
        assert self.stage.train(row, folder) == 0, said(folder)
        assert before == ((folder / TRACE).read_bytes(), (folder / LOG_NAME).read_bytes())

    def _sound(self, folder: Path) -> None:
        """Look at what a kill left: no checkpoint is ever damaged by one."""
        names = [path.name for path in folder.glob("*")]
        assert not [name for name in names if name.startswith("damaged-")], said(folder)
        newest = max((int(name.split("-")[1]) for name in names if name.startswith("checkpoint-")), default=0)
        where = "before its first save" if not newest else "at its end" if newest == STEPS else "between"
        self.after[where] = self.after.get(where, 0) + 1

    def _reference(self, row: str) -> Path:
        row = "augmented" if row == "beside" else row
        folder = self.root / f"{row}-alone"
        if not folder.exists():
            assert self.stage.train(row, folder) == 0, said(folder)
        return folder


def said(folder: Path) -> str:
    path = folder / SAID.format(0)
    return path.read_text() if path.exists() else ""


def compare(reference: Path, folder: Path, *, saves: bool = True) -> None:
    """Compare all that two runs left: checkpoints to the last bit, the log but for its times, every micro-batch.

    Without `saves`, when each save was told does not count.
    """
    assert folders(folder) == folders(reference)
    for path in sorted(reference.glob("checkpoint-*/*")):
        other = folder / path.relative_to(reference)
        if path.name not in _OF_ITS_OWN:
            assert other.read_bytes() == path.read_bytes(), other
        elif path.name == "trainer_state.json":
            assert state(other) == state(path), other
    assert log(folder, saves=saves) == log(reference, saves=saves)
    assert micro_batches(folder) == micro_batches(reference)


def folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def timeless(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "time" and not name.endswith(CLOCK)}


def log(folder: Path, *, saves: bool) -> list[dict[str, Any]]:
    return [timeless(entry) for entry in read_log(folder / LOG_NAME) if saves or entry["event"] != "save"]


def state(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text())
    best = content["best_model_checkpoint"]
    history = [timeless(entry) for entry in content["log_history"]]
    return {**content, "log_history": history, "best_model_checkpoint": best and Path(best).name}


def micro_batches(folder: Path) -> set[tuple[int, tuple[int, ...], float]]:
    """Return step, samples and loss of every micro-batch that any attempt trained on; a step has the same each time."""
    found = set()
    for line in (folder / TRACE).read_text().splitlines():
        entry = json.loads(line)
        found.add((entry["step"], tuple(entry["numbers"]), entry["loss"]))
    return found


@pytest.fixture
def tries(stage: Stage, tmp_path: Path) -> Tries:
    return Tries(stage, tmp_path, random.Random(20))


def test_twenty_kills_change_nothing(tries: Tries) -> None:
    tries.until(20)

    assert tries.finished >= 1


def test_kills_while_a_thread_writes_change_nothing(tries: Tries) -> None:
    tries.until(6, ["beside"])

    assert tries.finished >= 1


@pytest.mark.soak
def test_a_thousand_kills_change_nothing(tries: Tries, capsys: pytest.CaptureFixture[str]) -> None:
    tries.until(1000, list(ROWS))

    with capsys.disabled():
        print(f"\n{tries.kills} kills of {tries.begun} runs, {tries.finished} compared; killed {tries.after}")


def test_the_comparison_sees_one_changed_bit(tries: Tries) -> None:
    tries.until(0)
    reference, other = tries._reference("augmented"), tries.root / "other"
    assert tries.stage.train("augmented", other) == 0
    compare(reference, other)
    for name, change in {
        f"checkpoint-{STEPS}/model.safetensors": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        TRACE: lambda content: content.replace(b'"numbers": [', b'"numbers": [9, ', 1),
        LOG_NAME: lambda content: content.replace(b'"step": 7', b'"step": 8', 1),
    }.items():
        as_it_was = (other / name).read_bytes()
        (other / name).write_bytes(change(as_it_was))
        with pytest.raises(AssertionError):
            compare(reference, other)
        (other / name).write_bytes(as_it_was)
    compare(reference, other)
