"""A checkpoint is whole or it does not exist: staging, committing, finding, thinning out, and every fault between."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.checkpoint.stores import make_store, names, save, steps

from surestep.checkpoint import files
from surestep.checkpoint.layout import checkpoints_in, random_name, step_of
from surestep.checkpoint.store import CheckpointStore
from surestep.checkpoint.tree import read_tree


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
    store.prune()
    assert steps(store) == []
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
