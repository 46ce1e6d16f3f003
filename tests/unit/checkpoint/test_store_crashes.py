"""Crashes and full disks: a checkpoint is whole or not there, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.checkpoint.stores import make_store, names, run_python, save, steps

from surestep.checkpoint import files
from surestep.checkpoint.layout import checkpoints_in
from surestep.checkpoint.store import CheckpointStore
from surestep.checkpoint.tree import read_tree

# Crashes: the process ends between two operations on files, and another one takes over.

OPERATIONS = ("sync", "digest", "rename", "remove")


class _Crash(BaseException):
    """Stands for the death of the process: nothing of ours may run after it."""


@contextmanager
def crash_at(monkeypatch: pytest.MonkeyPatch, count: int, *, after: bool) -> Iterator[list[str]]:
    """Die before or after the operation number `count`; every later operation is one of a dead process."""
    calls: list[str] = []

    def wrap(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            if len(calls) > count:
                raise _Crash
            calls.append(name)
            if len(calls) > count and not after:
                raise _Crash
            result = operation(*args)
            if len(calls) > count:
                raise _Crash
            return result

        return run

    with monkeypatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(files, name, wrap(name, getattr(files, name)))
        yield calls


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("replacing", [False, True])
def test_a_crash_anywhere_leaves_the_old_or_the_new_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replacing: bool, after: bool
) -> None:
    outcomes = set()
    for count in range(1000):
        root = tmp_path / str(count)
        store = make_store(root)
        save(store, 1, 1.0)
        if replacing:
            save(store, 2, 1.0)
        crashed = False
        with crash_at(monkeypatch, count, after=after) as calls:
            try:
                save(store, 2, 2.0)
            except _Crash:
                crashed = True
        # Whatever carries the name is whole, also before anything is cleared away.
        assert all(not store.verify(path) for path in checkpoints_in(root))
        store.release()
        restarted = make_store(root)
        found = restarted.newest_valid()
        assert found.passed_over == []
        assert found.path is not None
        assert names(root) == {path.name for path in checkpoints_in(root)}
        value = read_tree(found.path, "optimizer")["w"][0].item()
        outcomes.add((found.path.name, value))
        if not crashed:
            assert len(calls) == count
            break
        if replacing:
            assert found.path.name == "checkpoint-2"
    else:
        pytest.fail("the save did not come to its end")
    assert count > 15
    assert outcomes == {("checkpoint-2" if replacing else "checkpoint-1", 1.0), ("checkpoint-2", 2.0)}


def test_everything_is_on_the_disk_before_it_counts(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[str, str]] = []
    sync, renamed = os.fsync, Path.rename

    def note_sync(handle: int) -> None:
        events.append(("sync", str(Path(f"/proc/self/fd/{handle}").readlink())))
        sync(handle)

    def note_rename(source: Path, target: Path) -> Path:
        events.append(("rename", str(target)))
        return renamed(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "rename", note_rename)
    folder = save(store, 1)
    monkeypatch.undo()
    stage = store.root / ".staging-checkpoint-1" / "checkpoint-1"
    commit = events.index(("rename", str(folder)))
    for path in [folder, *folder.rglob("*")]:
        staged = stage / path.relative_to(folder)
        assert events.index(("sync", str(staged))) < commit
        # A folder's list of names is written after the files that it names.
        assert path == folder or events.index(("sync", str(staged.parent))) > events.index(("sync", str(staged)))
    assert events.index(("sync", str(store.root))) > commit


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


# Full disks

FULL = """
import errno, resource, sys, torch
from pathlib import Path
from surestep.checkpoint.store import CheckpointStore
from surestep.checkpoint.tree import write_tree
from surestep.runtime.world import World
root = Path(sys.argv[1])
store = CheckpointStore(root, world=World())
def save(step, size):
    with store.staging(step) as stage:
        write_tree(stage.folder, "optimizer", {"w": torch.zeros(size, dtype=torch.uint8), "name": "a" * (size // 100)})
save(1, 1000)
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sizes = [1_000_000, 20_001, 19_990, 18_000, 5_000_000] if sys.argv[2] == "limit" else [400_000, 1_000_000]
for size in sizes:
    try:
        save(2, size)
    except OSError as error:
        print(errno.errorcode[error.errno])
    else:
        print("saved")
    print(sorted(path.name for path in root.iterdir() if not path.name.endswith("lock")))
    print(store.newest_valid().path.name)
save(3, 1000)
print(store.newest_valid().path.name)
"""


def run_full(root: Path, kind: str) -> list[str]:
    script = FULL.replace("sys.argv[1]", repr(str(root))).replace("sys.argv[2]", repr(kind))
    finished = run_python(script)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.splitlines()


def test_a_file_over_the_limit_leaves_nothing_and_the_run_goes_on(tmp_path: Path) -> None:
    lines = run_full(tmp_path, "limit")
    refused = ["EFBIG", "['checkpoint-1']", "checkpoint-1"]
    both = ["['checkpoint-1', 'checkpoint-2']", "checkpoint-2"]
    assert lines == [*refused * 3, "saved", *both, "EFBIG", *both, "checkpoint-3"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs the rights of root")
def test_a_full_disk_leaves_nothing_and_the_run_goes_on(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode()}")
    try:
        lines = run_full(disk / "run", "disk")
    finally:
        subprocess.run(["umount", disk], check=True)
    assert lines == ["ENOSPC", "['checkpoint-1']", "checkpoint-1"] * 2 + ["checkpoint-3"]


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


@pytest.mark.parametrize("operation", ["sync", "digest", "rename"])
def test_a_commit_that_fails_leaves_nothing(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    save(store, 1)

    def fail(*args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(files, operation, fail)
        with pytest.raises(OSError, match="Input/output error"):
            save(store, 2)
        with pytest.raises(OSError, match="Input/output error"):
            save(store, 1, 2.0)
    assert names(store.root) == {"checkpoint-1"}
    assert store.verify(store.root / "checkpoint-1") == []


def test_a_replacement_that_fails_puts_the_old_one_back(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, 1, 1.0)
    rename = files.rename

    def fail(source: Path, target: Path) -> None:
        if source.parent.name.startswith(".staging"):
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files, "rename", fail)
        with pytest.raises(OSError, match="Input/output error"):
            save(store, 1, 2.0)
    assert names(store.root) == {"checkpoint-1"}
    assert read_tree(store.root / "checkpoint-1", "optimizer")["w"][0] == 1
