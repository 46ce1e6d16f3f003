"""One run a folder, and several processes that write one checkpoint together."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.unit.checkpoint.stores import make_store, names, run_python, save

from surestep.checkpoint import files
from surestep.checkpoint.retention import Retention
from surestep.checkpoint.store import CheckpointStore
from surestep.checkpoint.tree import write_tree
from surestep.errors import CheckpointError
from surestep.runtime.world import World

KEEP_ONE = Retention(last=1)

# One run a folder

HOLD = """
import sys
from pathlib import Path
from surestep.checkpoint.store import CheckpointStore
from surestep.runtime.world import World
store = CheckpointStore(Path({root!r}), world=World())
with store.staging(1) as stage:
    print("ready", flush=True)
    sys.stdin.readline()
    (stage.folder / "a.txt").write_text("a")
print("done", flush=True)
"""


def test_two_runs_in_one_folder_are_refused_and_a_look_disturbs_nobody(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(root=str(tmp_path))],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        second = make_store(tmp_path)
        with pytest.raises(CheckpointError, match=rf"written to by process {process.pid} on .*output_dir"):
            second.claim()
        assert second.latest() is None
        assert names(tmp_path) == {".staging-checkpoint-1"}
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
    assert process.returncode == 0
    second.claim()
    assert second.latest() == tmp_path / "checkpoint-1"
    second.release()


def test_stores_of_one_process_share_the_folder_and_its_last_release_frees_it(tmp_path: Path) -> None:
    first, second = make_store(tmp_path), make_store(tmp_path)
    with first.staging(1) as stage:
        (stage.folder / "a.txt").write_text("a")
        second.claim()
        second.claim()
        third = make_store(tmp_path)
        assert third.latest() is None
        assert stage.folder.is_dir()
    claim = f"""
from pathlib import Path
from surestep.checkpoint.store import CheckpointStore
from surestep.runtime.world import World
CheckpointStore(Path({str(tmp_path)!r}), world=World()).claim()
"""
    first.release()
    first.release()
    assert "CheckpointError" in run_python(claim).stderr
    second.release()
    assert run_python(claim).returncode == 0


def test_a_forked_child_does_not_have_what_its_parent_has(store: CheckpointStore) -> None:
    store.claim()
    child = os.fork()
    if child == 0:  # pragma: no cover - the child's coverage is not collected
        try:
            make_store(store.root).claim()
        except CheckpointError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_file_system_without_locks_is_told_and_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import fcntl

    def unsupported(*args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", unsupported)
    store = make_store(tmp_path)
    save(store, 1)
    assert "No locks available" in caplog.text
    store.release()


def test_a_folder_that_cannot_be_written_to_can_be_read(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(store, 1)
    store.release()
    opened = os.open

    def refuse(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    assert make_store(store.root).newest_valid().path == folder
    with pytest.raises(PermissionError):
        make_store(store.root).claim()


def test_a_root_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(FileExistsError):
        save(make_store(tmp_path / "run"), 1)


# Several processes, played by threads that share a barrier


@dataclass(frozen=True, slots=True)
class SharedWorld(World):
    shared: threading.Barrier | None = None

    def barrier(self) -> None:
        assert self.shared is not None
        self.shared.wait(timeout=30)


Body = Callable[[int, Path], None]


def run_ranks(root: Path, size: int, body: Body, *, step: int = 1) -> list[BaseException | None]:
    shared = threading.Barrier(size)

    def work(rank: int) -> BaseException | None:
        store = CheckpointStore(root, world=SharedWorld(rank=rank, size=size, shared=shared), retention=KEEP_ONE)
        store.run = "one"
        try:
            with store.staging(step) as stage:
                body(rank, stage.folder)
            store.prune()
        except BaseException as error:
            return error
        finally:
            store.release()
        return None

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, range(size)))


def write_part(rank: int, folder: Path) -> None:
    write_tree(folder, f"random_{rank}", {"rank": rank})


@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_rank_writes_its_part_and_one_commits(tmp_path: Path, size: int) -> None:
    for step in (1, 2):
        assert run_ranks(tmp_path, size, write_part, step=step) == [None] * size
    assert names(tmp_path) == {"checkpoint-2"}
    assert names(tmp_path / "checkpoint-2") == {"manifest.json", *(f"random_{rank}.json" for rank in range(size))}
    assert make_store(tmp_path).verify(tmp_path / "checkpoint-2") == []


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_rank_that_fails_stops_all_and_commits_nothing(tmp_path: Path, failing: int) -> None:
    def body(rank: int, folder: Path) -> None:
        write_part(rank, folder)
        if rank == failing:
            raise OSError(errno.ENOSPC, "No space left on device")

    errors = run_ranks(tmp_path, 3, body)
    assert names(tmp_path) == set()
    for rank, error in enumerate(errors):
        if rank == failing:
            assert isinstance(error, OSError)
            assert error.errno == errno.ENOSPC
        else:
            assert isinstance(error, CheckpointError)
            assert "not committed" in str(error)


def test_a_commit_that_fails_stops_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "digest", fail)
    errors = run_ranks(tmp_path, 2, write_part)
    assert isinstance(errors[0], OSError)
    assert isinstance(errors[1], CheckpointError)
    assert names(tmp_path) == set()


def test_a_stage_that_cannot_be_made_stops_all(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    errors = run_ranks(tmp_path / "run", 2, write_part)
    assert isinstance(errors[0], FileExistsError)
    assert isinstance(errors[1], CheckpointError)
    assert "main process" in str(errors[1])


def test_a_failure_is_told_although_the_other_processes_are_gone(tmp_path: Path) -> None:
    shared = threading.Barrier(1)
    store = CheckpointStore(tmp_path, world=SharedWorld(rank=0, size=1, shared=shared))

    def fail() -> None:
        with store.staging(1):
            shared.abort()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(tmp_path) == set()
    store.release()
