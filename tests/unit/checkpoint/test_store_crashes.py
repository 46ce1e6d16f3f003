"""What a save waits for, and a process that is killed in one. Faults at every operation: `tests/faults`."""

from __future__ import annotations

import errno
import signal
from pathlib import Path

import pytest
from tests.unit.checkpoint.stores import make_store, names, run_python, save, steps

from surestep.checkpoint import files
from surestep.checkpoint.store import CheckpointStore
from surestep.runtime.disk import Disk, writing_through


class _Noting(Disk):
    """Notes what is waited for and what is renamed."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Path]] = []

    def sync(self, path: Path) -> None:
        self.events.append(("sync", path))
        super().sync(path)

    def rename(self, source: Path, target: Path) -> None:
        self.events.append(("rename", target))
        super().rename(source, target)


def test_everything_is_on_the_disk_before_it_counts(store: CheckpointStore) -> None:
    disk = _Noting()
    with writing_through(disk):
        folder = save(store, 1)
    events = disk.events
    stage = store.root / ".staging-checkpoint-1" / "checkpoint-1"
    commit = events.index(("rename", folder))
    for path in [folder, *folder.rglob("*")]:
        staged = stage / path.relative_to(folder)
        assert events.index(("sync", staged)) < commit
        # A folder's list of names is written after the files that it names.
        assert path == folder or events.index(("sync", staged.parent)) > events.index(("sync", staged))
    assert ("sync", store.root) in events[commit:]
    # The run's folder itself was made by this store.
    assert events.index(("sync", store.root.parent)) < commit


def test_a_process_that_is_killed_while_saving_leaves_nothing_that_counts(tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from surestep.checkpoint.store import CheckpointStore
from surestep.runtime.world import World
store = CheckpointStore(Path({str(tmp_path)!r}), world=World())
with store.staging(1) as stage:
    (stage.folder / "a.txt").write_text("a")
with store.staging(2) as stage:
    (stage.folder / "a.txt").write_text("a")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run_python(script).returncode == -signal.SIGKILL
    assert steps(make_store(tmp_path)) == [1]
    assert ".staging-checkpoint-2" in names(tmp_path)
    assert make_store(tmp_path).latest() == tmp_path / "checkpoint-1"
    assert names(tmp_path) == {"checkpoint-1"}


def test_a_staging_that_cannot_be_removed_does_not_hide_why_the_save_failed(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    def fail() -> None:
        with store.staging(1) as stage:
            (stage.folder / "a").write_text("")
            monkeypatch.setattr(files, "remove", refuse)
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        fail()
    assert "Read-only" in caplog.text
    monkeypatch.undo()
    save(store, 2)
    assert store.newest_valid().path == store.root / "checkpoint-2"
