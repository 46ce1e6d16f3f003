"""Checkpoints in a remote folder: whole at every moment, whatever fails; checked on arrival and when fetched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.checkpoint.remote_stores import URL, Dead, Faulty, Plan, remote, whole
from tests.unit.checkpoint.stores import make_store

from surestep.checkpoint.layout import MANIFEST
from surestep.checkpoint.origin import Origin
from surestep.checkpoint.remote import DamagedError
from surestep.checkpoint.retention import Retention
from surestep.checkpoint.store import CheckpointStore
from surestep.checkpoint.tree import write_tree
from surestep.errors import ArgumentError, MissingPackageError
from surestep.runtime.remote_folder import RemoteError, RemoteFolder, is_url

LAST = Retention(last=1)
_LOG = {"train_log.jsonl": b'{"step": 1}\n'}


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    Faulty.reset()
    yield
    Faulty.reset()


def save(store: CheckpointStore, step: int, value: float = 1.0, run: str = "mine") -> Path:
    store.run = run
    with store.staging(step, score=value) as stage:
        Origin(run=run, begun="today").write(stage.folder)
        write_tree(stage.folder, "optimizer", {"w": torch.full((50,), value), "step": step})
        (stage.folder / "inner").mkdir()
        (stage.folder / "inner" / "notes.txt").write_text("notes")
        (stage.folder / "empty.txt").write_text("")
    return store.root / f"checkpoint-{step}"


def nothing(_: int) -> None:
    """Take the bytes that have arrived."""


def test_what_is_sent_comes_back_as_it_was(store: CheckpointStore, tmp_path: Path) -> None:
    folder, there = save(store, 3), remote()
    assert there.send(folder, _LOG)
    assert there.names() == whole(there) == ["checkpoint-3"]

    there.fetch("checkpoint-3", there.listing("checkpoint-3"), tmp_path / "back", nothing)

    for path in filter(Path.is_file, folder.rglob("*")):
        assert (tmp_path / "back" / path.relative_to(folder)).read_bytes() == path.read_bytes()
    assert there.folder.read("checkpoint-3/train_log.jsonl") == _LOG["train_log.jsonl"]


def test_the_manifest_is_last_and_the_origin_first(store: CheckpointStore) -> None:
    remote().send(save(store, 3), _LOG)
    written = [line.rpartition("/")[2] for line in Faulty.operations if line.startswith(("put", "pipe"))]
    assert (written[0], written[-2], written[-1]) == ("origin.json", "train_log.jsonl", MANIFEST)

    Faulty.reset(keep=True)
    remote().remove("checkpoint-3")
    removed = [line.rpartition("/")[2] for line in Faulty.operations if line.startswith("remove")]
    assert (removed[0], removed[-1]) == (MANIFEST, "origin.json")
    assert not Faulty.store


def test_what_is_there_is_not_sent_again(store: CheckpointStore) -> None:
    folder = save(store, 3)
    remote().send(folder)
    Faulty.reset(keep=True)
    assert not remote().send(folder)
    assert not [line for line in Faulty.operations if line.startswith(("put", "pipe", "remove"))]


def _send_and_prune(folder: Path) -> None:
    there = remote()
    there.send(folder, _LOG)
    there.prune("mine", LAST, folder.name, ())


def _operations(before: list[Path], folder: Path) -> int:
    Faulty.reset()
    for one in before:
        remote().send(one, _LOG)
    Faulty.reset(keep=True)
    _send_and_prune(folder)
    return len(Faulty.operations)


@pytest.mark.parametrize("plan", [{"dies": True}, {"dies": True, "torn": True}, {}, {"torn": True}, {"lasting": True}])
def test_a_fault_at_every_operation_leaves_the_former_or_the_new_one(store: CheckpointStore, plan: Any) -> None:
    former, new = save(store, 1), save(store, 2, 2.0)
    count = _operations([former], new)
    assert count > 20
    ended = []
    for at in range(count):
        Faulty.reset()
        remote().send(former, _LOG)
        Faulty.reset(Plan(at=at, **plan), keep=True)
        # An error in a mere question (is this a folder?) may be taken for a no.
        with suppress(Dead, RemoteError):
            _send_and_prune(new)
        assert len(Faulty.operations) > at
        Faulty.reset(keep=True)
        left = whole(remote())
        # Deleting the former one may have begun, once the new one was complete.
        assert left in (["checkpoint-1"], ["checkpoint-1", "checkpoint-2"], ["checkpoint-2"]), (at, left)
        ended.append(left)
        # The next try brings everything to where it should be.
        _send_and_prune(new)
        unfinished = [name for name, one in remote().standing().items() if one.unfinished]
        for name in remote().left_by("mine", unfinished):
            remote().remove(name)
        assert remote().names() == whole(remote()) == ["checkpoint-2"], at
    assert ended[0] == ["checkpoint-1"]
    assert ended[-1] == ["checkpoint-2"]


@pytest.mark.parametrize("plan", [{"dies": True}, {"dies": True, "torn": True}, {"lasting": True}])
def test_one_of_the_same_step_is_never_mixed_with_another(store: CheckpointStore, tmp_path: Path, plan: Any) -> None:
    earlier, old = save(store, 1), save(store, 2)
    other = make_store(tmp_path / "other")
    new = save(other, 2, 5.0)
    seals = {path: (path / MANIFEST).read_bytes() for path in (old, new)}
    count = _operations([earlier, old], new)
    seen = set()
    for at in range(count):
        Faulty.reset()
        remote().send(earlier, _LOG)
        remote().send(old, _LOG)
        Faulty.reset(Plan(at=at, **plan), keep=True)
        # An error in a mere question (is this a folder?) may be taken for a no.
        with suppress(Dead, RemoteError):
            _send_and_prune(new)
        assert len(Faulty.operations) > at
        Faulty.reset(keep=True)
        left = whole(remote())
        if "checkpoint-2" in left:
            text = remote().folder.read(f"checkpoint-2/{MANIFEST}")
            seen.add(next(path for path, seal in seals.items() if seal == text))
        else:
            assert left == ["checkpoint-1"]
            seen.add(earlier)
    assert seen == {earlier, old, new}
    other.release()


@pytest.mark.parametrize("name", ["optimizer.safetensors", "inner/notes.txt", MANIFEST, "empty.txt"])
@pytest.mark.parametrize("damage", ["gone", "shorter", "flipped"])
def test_a_damaged_one_is_named(store: CheckpointStore, tmp_path: Path, name: str, damage: str) -> None:
    there = remote()
    there.send(save(store, 1))
    content = there.folder.read(f"checkpoint-1/{name}")
    there.folder.remove(f"checkpoint-1/{name}")
    flipped = bytes([content[0] ^ 1]) + content[1:] if content else b"more"
    if damage != "gone":
        there.folder.write(f"checkpoint-1/{name}", content[:-1] if damage == "shorter" and content else flipped)

    assert there.verify("checkpoint-1", nothing).problems
    with pytest.raises(DamagedError, match=name.rpartition("/")[2]):
        there.fetch("checkpoint-1", there.listing("checkpoint-1"), tmp_path / "back", nothing)


def test_what_comes_otherwise_once_is_fetched_again(
    store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = remote()
    there.send(save(store, 1))
    parts, spoiled = RemoteFolder.parts, []

    def spoils(self: RemoteFolder, name: str, size: int) -> Iterator[bytes]:
        for part in parts(self, name, size):
            yield bytes(len(part)) if not spoiled else part
            spoiled.append(name)

    monkeypatch.setattr(RemoteFolder, "parts", spoils)
    there.fetch("checkpoint-1", there.listing("checkpoint-1"), tmp_path / "back", nothing)
    assert spoiled


# On arrival.


def test_a_file_that_arrives_otherwise_is_found(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(store, 1)

    def spoils(self: Faulty, lpath: str, rpath: str, **kwargs: Any) -> None:
        content = Path(lpath).read_bytes()
        self.store.pop(rpath, None)
        self.pipe_file(rpath, content[:-1] + b"?" if content else content)

    monkeypatch.setattr(Faulty, "put_file", spoils)
    with pytest.raises(RemoteError, match="not what was sent"):
        remote().send(folder)
    assert whole(remote()) == []


def _md5(path: Path, part: int | None = None) -> str:
    content = path.read_bytes()
    if part is None:
        return hashlib.md5(content).hexdigest()
    sums = [hashlib.md5(content[at : at + part]).digest() for at in range(0, len(content), part)]
    return f"{hashlib.md5(b''.join(sums)).hexdigest()}-{len(sums)}"


@pytest.mark.parametrize(("part", "megabytes"), [(None, 0), (None, 3), (5, 12), (50, 51), (8, 16)])
def test_a_checksum_that_the_store_tells_spares_reading_back(
    store: CheckpointStore, part: int | None, megabytes: int
) -> None:
    store.run = "mine"
    with store.staging(1) as stage:
        (stage.folder / "large.bin").write_bytes(bytes(range(256)) * 4 * 1024 * megabytes + b"end")
    large = store.root / "checkpoint-1" / "large.bin"
    Faulty.tags["large.bin"] = f'"{_md5(large, part and part * 2**20)}"'
    remote().send(large.parent)
    assert not [line for line in Faulty.operations if line.startswith("read") and "large" in line]


def test_a_checksum_of_something_else_is_no_reason_to_fail(store: CheckpointStore) -> None:
    folder = save(store, 1)
    Faulty.tags["optimizer.safetensors"] = "0" * 32
    remote().send(folder)
    assert [line for line in Faulty.operations if line.startswith("read") and "optimizer.safetensors" in line]
    assert whole(remote()) == ["checkpoint-1"]


def test_a_file_that_has_changed_here_is_not_sent_as_whole(store: CheckpointStore) -> None:
    folder = save(store, 1)
    path = folder / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    Faulty.tags[path.name] = _md5(path)
    with pytest.raises(OSError, match="not as it was written"):
        remote().send(folder)
    assert whole(remote()) == []


# What stays.


def test_only_what_the_run_wrote_is_deleted(store: CheckpointStore, tmp_path: Path) -> None:
    there, other = remote(), make_store(tmp_path / "other")
    there.send(save(other, 1, run="theirs"))
    for step in (2, 3, 4):
        there.send(save(store, step, value=float(-step)))
    there.folder.write("checkpoint-0/whose.txt", b"nobody's")

    assert there.prune("mine", Retention(last=1, best=0), "checkpoint-4", ["checkpoint-2"]) == ["checkpoint-3"]

    assert there.names() == ["checkpoint-0", "checkpoint-1", "checkpoint-2", "checkpoint-4"]
    assert [kept.path.name for kept in there.own("mine")] == ["checkpoint-2", "checkpoint-4"]
    other.release()


def test_without_a_limit_nothing_is_looked_at(store: CheckpointStore) -> None:
    remote().send(save(store, 1))
    Faulty.reset(keep=True)
    assert remote().prune("mine", Retention(), "checkpoint-1", ()) == []
    assert Faulty.operations == []


def test_leftovers_are_told_by_whose_they_are(store: CheckpointStore) -> None:
    there = remote()
    there.folder._files.makedirs("bucket/run/checkpoint-9")
    for step, run in ((1, "mine"), (2, "theirs"), (3, "mine")):
        there.send(save(store, step, run=run))
    there.folder.remove(f"checkpoint-1/{MANIFEST}")
    there.folder.remove(f"checkpoint-2/{MANIFEST}")
    there.folder.write("checkpoint-4/file", b"of nobody")
    # Of a later version: neither unfinished nor this run's to delete.
    content = json.loads(there.folder.read(f"checkpoint-3/{MANIFEST}")) | {"version": 99}
    there.folder.write(f"checkpoint-3/{MANIFEST}", json.dumps(content).encode())

    unfinished = [name for name, one in there.standing().items() if one.unfinished]

    assert unfinished == ["checkpoint-1", "checkpoint-2", "checkpoint-4", "checkpoint-9"]
    assert there.left_by("mine", unfinished) == ["checkpoint-1", "checkpoint-9"]


# URLs.


def test_a_folder_of_this_machine_behind_a_url(store: CheckpointStore, tmp_path: Path) -> None:
    there = remote(f"file://{tmp_path}/bucket")
    assert there.names() == []
    there.send(save(store, 1), _LOG)
    there.send(save(store, 2), _LOG)
    assert whole(there) == ["checkpoint-1", "checkpoint-2"]
    there.prune("mine", LAST, "checkpoint-2", ())
    assert [path.name for path in (tmp_path / "bucket").iterdir()] == ["checkpoint-2"]


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        ("s3://me:secret@bucket/run", ArgumentError, r"\*\*\*@bucket/run' has a password in it"),
        ("nowhere://bucket", ArgumentError, "Protocol not known: nowhere"),
        ("dvc://bucket", MissingPackageError, "pip install dvc"),
        ("simplecache::dropbox://run", MissingPackageError, "pip install dropboxdrivefs"),
    ],
)
def test_urls_that_cannot_be_opened(url: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        RemoteFolder(url, "save_remote")
    assert "secret" not in str(caught.value)


def test_what_is_a_url() -> None:
    assert [
        text for text in ("s3://b", "memory://a", "dir::file:///a", "a/b", "C:\\a", "/a", True) if is_url(text)
    ] == [
        "s3://b",
        "memory://a",
        "dir::file:///a",
    ]
    assert RemoteFolder(URL + "/", "it").within("a").parent.url == URL


def test_one_that_is_replaced_while_it_is_fetched_is_no_mixture(store: CheckpointStore, tmp_path: Path) -> None:
    there = remote()
    there.send(save(store, 1))
    listing = there.listing("checkpoint-1")
    there.send(save(store, 1, value=2.0))

    with pytest.raises(DamagedError, match="has become another one"):
        there.fetch("checkpoint-1", listing, tmp_path / "back", nothing)
    assert not (tmp_path / "back" / MANIFEST).exists()


def test_a_manifest_that_arrives_otherwise_is_found(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, write = save(store, 1), RemoteFolder.write

    def spoils(self: RemoteFolder, name: str, content: bytes) -> None:
        write(self, name, content.replace(b"{", b"[", 1) if name.endswith(MANIFEST) else content)

    monkeypatch.setattr(RemoteFolder, "write", spoils)
    with pytest.raises(RemoteError, match=r"manifest\.json' is not what was sent"):
        remote().send(folder)


def test_what_an_older_one_of_the_same_step_had_besides_is_removed(store: CheckpointStore) -> None:
    there = remote()
    there.send(save(store, 1))
    there.folder.write("checkpoint-1/rest.txt", b"rest")
    there.send(save(store, 1, value=2.0))

    assert "rest.txt" not in there.folder.within("checkpoint-1").sizes()
    assert whole(there) == ["checkpoint-1"]
