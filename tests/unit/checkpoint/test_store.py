"""A checkpoint is whole or it does not exist: staging, committing, finding, thinning out, and every fault between."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from surestep.checkpoint import files
from surestep.checkpoint.layout import checkpoints_in, random_name, step_of
from surestep.checkpoint.store import CheckpointStore
from surestep.checkpoint.tree import read_tree, write_tree
from surestep.errors import CheckpointError
from surestep.runtime.world import World


def make_store(root: Path, keep_last: int | None = None) -> CheckpointStore:
    return CheckpointStore(root, world=World(), keep_last=keep_last)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CheckpointStore]:
    found = make_store(tmp_path / "run")
    yield found
    found.release()


def save(store: CheckpointStore, step: int, value: float = 1.0) -> Path:
    with store.staging(step) as stage:
        write_tree(stage.folder, "optimizer", {"w": torch.full((50,), value), "step": step})
        (stage.folder / "inner").mkdir()
        (stage.folder / "inner" / "notes.txt").write_text("notes")
        (stage.folder / "empty.txt").write_text("")
        for name in ("trainer_state.json", "progress.json"):
            (stage.folder / name).write_text("{}")
    return store.root / f"checkpoint-{step}"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".surestep-lock"}


def steps(store: CheckpointStore) -> list[int | None]:
    return [step_of(path) for path in checkpoints_in(store.root)]


def test_a_checkpoint_appears_only_when_the_body_has_ended(store: CheckpointStore) -> None:
    with store.staging(7) as stage:
        assert stage.step == 7
        assert stage.folder == stage.root / "checkpoint-7"
        assert stage.folder.is_dir()
        assert stage.root.parent == store.root
        (stage.folder / "a.txt").write_text("a")
        assert store.latest() is None
        assert checkpoints_in(store.root) == []
    assert names(store.root) == {"checkpoint-7"}
    assert store.latest() == store.root / "checkpoint-7"
    assert store.verify(store.root / "checkpoint-7") == []


def test_the_manifest_lists_every_file(store: CheckpointStore) -> None:
    folder = save(store, 3)
    content = json.loads((folder / "manifest.json").read_text())
    assert content["step"] == 3
    expected = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"manifest.json"}
    assert set(content["files"]) == expected
    assert content["files"]["inner/notes.txt"]["size"] == 5


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, OSError])
def test_a_body_that_fails_leaves_nothing(store: CheckpointStore, error: type[BaseException]) -> None:
    def fail() -> None:
        with store.staging(5) as stage:
            (stage.folder / "a.txt").write_text("a")
            raise error

    with pytest.raises(error):
        fail()
    assert names(store.root) == set()
    save(store, 5)
    assert steps(store) == [5]


def test_a_body_that_fails_leaves_the_older_one_of_the_step(store: CheckpointStore) -> None:
    folder = save(store, 5, 1.0)

    def fail() -> None:
        with store.staging(5) as stage:
            (stage.folder / "other.txt").write_text("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.verify(folder) == []
    assert not (folder / "other.txt").exists()


def test_a_checkpoint_takes_the_place_of_an_older_one_of_its_step(store: CheckpointStore) -> None:
    folder = save(store, 5, 1.0)
    (folder / "stale.txt").write_text("")
    assert save(store, 5, 2.0) == folder
    assert read_tree(folder, "optimizer")["w"][0] == 2
    assert not (folder / "stale.txt").exists()
    assert names(store.root) == {"checkpoint-5"}


def test_what_an_override_writes_beside_the_checkpoint_moves_to_the_run(store: CheckpointStore) -> None:
    store.root.mkdir()
    (store.root / "logs").mkdir()
    (store.root / "logs" / "old.txt").write_text("old")
    (store.root / "log.txt").write_text("old")
    with store.staging(1) as stage:
        (stage.folder / "a.txt").write_text("a")
        (stage.root / "log.txt").write_text("new")
        (stage.root / "logs").mkdir()
        (stage.root / "logs" / "new.txt").write_text("new")
        (stage.root / "last").symlink_to("checkpoint-1")
    assert names(store.root) == {"checkpoint-1", "log.txt", "logs", "last"}
    assert (store.root / "log.txt").read_text() == "new"
    assert names(store.root / "logs") == {"old.txt", "new.txt"}
    assert (store.root / "last" / "a.txt").read_text() == "a"


def test_links_within_a_checkpoint_are_listed_where_they_lead_to_files(store: CheckpointStore) -> None:
    with store.staging(1) as stage:
        (stage.folder / "a.txt").write_text("a")
        (stage.folder / "inner").mkdir()
        (stage.folder / "to_file").symlink_to("a.txt")
        (stage.folder / "to_folder").symlink_to("inner")
        (stage.folder / "to_nothing").symlink_to("nowhere")
    assert set(json.loads((store.root / "checkpoint-1" / "manifest.json").read_text())["files"]) == {"a.txt", "to_file"}
    assert store.verify(store.root / "checkpoint-1") == []


@pytest.mark.parametrize("removed", [False, True])
def test_a_body_that_writes_nothing_commits_nothing(
    store: CheckpointStore, caplog: pytest.LogCaptureFixture, removed: bool
) -> None:
    with store.staging(1) as stage:
        if removed:
            stage.folder.rmdir()
    assert names(store.root) == set()
    assert "Nothing was written" in caplog.text


# Verification


def damages(path: Path) -> Iterator[tuple[str, bytes | None]]:
    """Yield ways to damage a file: gone, cut at either end and within, longer, one bit changed anywhere."""
    content = path.read_bytes()
    yield "gone", None
    yield "longer", content + b"x"
    for length in sorted({0, 1, len(content) // 2, len(content) - 1}):
        if 0 <= length < len(content):
            yield f"cut to {length}", content[:length]
    for position in range(0, len(content), max(1, len(content) // 40)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        yield f"bit of byte {position}", bytes(flipped)


def test_every_damage_to_every_file_is_found(store: CheckpointStore) -> None:
    folder = save(store, 2)
    tried = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for damage, damaged in damages(path):
            if damaged is None:
                path.unlink()
            else:
                path.write_bytes(damaged)
            (problem,) = store.verify(folder)
            assert path.name in problem, damage
            tried += 1
        path.write_bytes(content)
    assert store.verify(folder) == []
    assert tried > 150


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "damaged"),
        ('{"seal": "x"}', "damaged"),
        ('{"seal": "x", "files": {}}', "its own checksum differs"),
        ("[" * 100_000, "damaged"),
    ],
)
def test_a_manifest_that_is_none_is_damage(store: CheckpointStore, text: str, problem: str) -> None:
    folder = save(store, 2)
    (folder / "manifest.json").write_text(text)
    (found,) = store.verify(folder)
    assert problem in found


def test_a_manifest_of_another_version_is_refused(store: CheckpointStore) -> None:
    folder = save(store, 2)
    content = json.loads((folder / "manifest.json").read_text())
    del content["seal"]
    content["version"] = 99
    seal = files.text_digest(json.dumps(content, sort_keys=True, separators=(",", ":")))
    (folder / "manifest.json").write_text(json.dumps(content | {"seal": seal}))
    (found,) = store.verify(folder)
    assert "99" in found


def test_a_file_that_cannot_be_read_is_damage(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(store, 2)

    def fail(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "digest", fail)
    assert "Input/output error" in store.verify(folder)[0]
    assert store.latest() == folder


def test_files_added_later_are_welcome(store: CheckpointStore) -> None:
    folder = save(store, 2)
    (folder / "card.md").write_text("text")
    assert store.verify(folder) == []


def test_a_folder_that_is_not_there_is_a_problem(store: CheckpointStore) -> None:
    assert "missing" in store.verify(store.root / "checkpoint-9")[0]


def test_the_newest_valid_one_is_found_behind_damaged_ones(
    store: CheckpointStore, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [save(store, step) for step in (9, 10, 100)]
    # Steps count as numbers: 9 < 10 < 100.
    assert store.newest_valid() == (paths[2], [], True)
    (paths[2] / "optimizer.safetensors").write_bytes(b"")
    content = bytearray((paths[1] / "optimizer.safetensors").read_bytes())
    content[-1] ^= 1
    (paths[1] / "optimizer.safetensors").write_bytes(content)
    found = store.newest_valid()
    assert found.path == paths[0]
    assert found.verified
    assert [path for path, _ in found.passed_over] == [paths[2], paths[1]]
    assert "0 bytes instead of" in found.passed_over[0][1][0]
    assert "checksum" in found.passed_over[1][1][0]
    assert all(str(path) in caplog.text for path in paths[1:])
    # `latest` compares sizes only.
    assert store.latest() == paths[1]
    (paths[0] / "trainer_state.json").unlink()
    assert store.newest_valid().path is None


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    store = make_store(tmp_path / "missing")
    assert store.newest_valid() == (None, [], False)
    assert store.latest() is None
    assert not (tmp_path / "missing").exists()


def test_a_folder_of_the_original_counts_unverified(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    folder = tmp_path / "checkpoint-4"
    folder.mkdir()
    assert "neither" in store.verify(folder)[0]
    (folder / "trainer_state.json").write_text('{"global_step": 4}')
    assert store.newest_valid() == (folder, [], False)
    assert store.latest() == folder
    (folder / "checkpoint-is-incomplete.txt").write_text("")
    assert "not completed" in store.verify(folder)[0]
    (folder / "checkpoint-is-incomplete.txt").unlink()
    (folder / "trainer_state.json").write_text('{"global_')
    assert "trainer_state.json is damaged" in store.verify(folder)[0]


@pytest.mark.parametrize("name", ["progress.json", "training_args.json"])
def test_our_own_folder_without_its_manifest_does_not_pass_as_the_originals(store: CheckpointStore, name: str) -> None:
    folder = save(store, 4)
    (folder / "progress.json").rename(folder / name)
    (folder / "manifest.json").unlink()
    assert "manifest.json is missing" in store.verify(folder)[0]


def test_a_folder_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert checkpoints_in(tmp_path / "nowhere") == []
    assert random_name(3) == "random_3"


def test_what_only_looks_like_a_checkpoint_is_not_one(store: CheckpointStore) -> None:
    save(store, 1)
    for name in ("checkpoint-2x", "checkpoint-", "xcheckpoint-3", "checkpoint-4.tmp", "damaged-checkpoint-5"):
        (store.root / name).mkdir()
    (store.root / "checkpoint-6").write_text("a file")
    assert steps(store) == [1]


def test_a_damaged_checkpoint_can_be_set_aside(store: CheckpointStore) -> None:
    first = store.set_aside(save(store, 1))
    second = store.set_aside(save(store, 1))
    third = store.set_aside(save(store, 1))
    assert [path.name for path in (first, second, third)] == [
        "damaged-checkpoint-1",
        "damaged-checkpoint-1-2",
        "damaged-checkpoint-1-3",
    ]
    assert steps(store) == []


# Thinning out


@pytest.mark.parametrize(
    ("limit", "best", "expected"),
    [
        (None, None, [1, 2, 3, 10, 20]),
        (0, None, [1, 2, 3, 10, 20]),
        (-1, None, [1, 2, 3, 10, 20]),
        (1, None, [20]),
        (2, None, [10, 20]),
        (5, None, [1, 2, 3, 10, 20]),
        (9, None, [1, 2, 3, 10, 20]),
        (1, 2, [2, 20]),
        (1, 20, [20]),
        (2, 2, [2, 20]),
        (3, 1, [1, 10, 20]),
        (3, 10, [3, 10, 20]),
        (2, 99, [10, 20]),
    ],
)
def test_the_last_ones_and_the_best_stay(
    tmp_path: Path, limit: int | None, best: int | None, expected: list[int]
) -> None:
    store = make_store(tmp_path, limit)
    for step in (10, 20, 3, 2, 1):
        save(store, step)
    save(store, 20)
    protected = set() if best is None else {tmp_path / f"checkpoint-{best}"}
    deleted = store.prune(protected)
    assert steps(store) == expected
    assert {step_of(path) for path in deleted} == {1, 2, 3, 10, 20} - set(expected)
    assert names(tmp_path) == {f"checkpoint-{step}" for step in expected}
    store.release()


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
@pytest.mark.parametrize("best", [None, 10, 20, 30, 40])
def test_the_same_stay_as_with_the_original(tmp_path: Path, limit: int, best: int | None) -> None:
    from transformers.trainer_utils import rotate_checkpoints

    ours, original = make_store(tmp_path / "ours", limit), tmp_path / "original"
    for step in (10, 20, 30, 40):
        save(ours, step)
        (original / f"checkpoint-{step}").mkdir(parents=True)
        known = best is not None and best <= step
        ours.prune({ours.root / f"checkpoint-{best}"} if known else set())
        rotate_checkpoints(str(original), limit, str(original / f"checkpoint-{best}") if known else None)
        assert names(ours.root) == names(original)
    ours.release()


def test_at_the_end_of_a_run_only_the_best_stays_with_a_limit_of_one(tmp_path: Path) -> None:
    store = make_store(tmp_path, 1)
    for step in (1, 2, 3):
        save(store, step)
    store.prune({tmp_path / "checkpoint-1"})
    assert steps(store) == [1, 3]
    store.prune({Path(os.path.relpath(tmp_path / "checkpoint-1"))}, keep_newest=False)
    assert steps(store) == [1]
    store.release()


def test_the_one_committed_last_stays_when_later_steps_are_there(tmp_path: Path) -> None:
    store = make_store(tmp_path, 1)
    for step in (10, 20, 30):
        save(store, step)
    # The run was taken back to step 10 and reaches 15.
    save(store, 15)
    store.prune()
    assert steps(store) == [15]
    store.set_aside(tmp_path / "checkpoint-15")
    save(make_store(tmp_path), 40)
    store.prune()
    assert steps(store) == [40]
    store.release()


def test_what_others_wrote_stays(tmp_path: Path) -> None:
    store = make_store(tmp_path, 1)
    for step in (1, 5):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    for step in (2, 3, 4):
        save(store, step)
    store.prune()
    assert steps(store) == [1, 4, 5]
    store.release()


def test_a_checkpoint_that_cannot_be_deleted_is_told_and_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(tmp_path, 1)
    save(store, 1)
    save(store, 2)

    def fail(path: Path) -> None:
        raise PermissionError(errno.EACCES, "no")

    with monkeypatch.context() as patch:
        patch.setattr(files, "remove", fail)
        assert store.prune() == []
    assert "checkpoint-1 could not be deleted" in caplog.text
    assert store.prune() == [tmp_path / "checkpoint-1"]
    store.release()


def test_no_half_deleted_checkpoint_is_ever_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, 1)
    save(store, 1)
    save(store, 2)
    monkeypatch.setattr(files.shutil, "rmtree", lambda path: (path / "optimizer.json").unlink())
    store.prune()
    assert steps(store) == [2]
    monkeypatch.undo()
    store.release()
    make_store(tmp_path).latest()
    assert names(tmp_path) == {"checkpoint-2"}


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


def run_python(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


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
        store = CheckpointStore(root, world=SharedWorld(rank=rank, size=size, shared=shared), keep_last=1)
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


@pytest.fixture(autouse=True)
def _logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="surestep")
