"""What a writer makes of a checkpoint that is held: it is committed, or nothing is left; of several, all or none."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.faults.disk import Fault, FaultyDisk
from tests.unit.checkpoint.stores import names, steps
from torch.distributed import HashStore

from surestep.checkpoint.retention import Retention
from surestep.checkpoint.stage import Stage
from surestep.checkpoint.store import CheckpointStore, OthersFailedError
from surestep.checkpoint.tree import read_tree, write_tree
from surestep.checkpoint.writer import Notes, SharedNotes, Writer
from surestep.runtime.disk import writing_through
from surestep.runtime.world import World

CPU = torch.device("cpu")


class Main(World):
    """A process that would meet others in barriers, and here meets nobody."""

    def barrier(self) -> None:
        """Meet nobody."""


def make(root: Path, world: World | None = None, notes: Notes | None = None, last: int | None = None) -> Any:
    world = world or World()
    store = CheckpointStore(root, world=world, retention=Retention(last=last))
    return Writer(store, world, CPU, notes or Notes()), store


def begin(writer: Writer, store: CheckpointStore, step: int, protect: tuple[Path, ...] = ()) -> Stage:
    stage = store.stage(step)
    values = torch.full((50,), float(step))
    with writer.filling(stage) as held:
        write_tree(stage.folder, "optimizer", {"w": values, "step": step})
        (stage.folder / "trainer_state.json").write_text("{}")
        (stage.folder / "progress.json").write_text("{}")
    values.zero_()
    writer.start(stage, held, protect)
    return stage


@pytest.fixture
def closing() -> Iterator[Callable[[Writer], Writer]]:
    made: list[Writer] = []
    yield lambda writer: made.append(writer) or writer  # type: ignore[func-returns-value]
    for writer in made:
        writer.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "surestep-writer"]


def test_a_checkpoint_is_committed_verified_and_others_are_thinned_out(tmp_path: Path, closing: Any) -> None:
    writer, store = make(tmp_path, last=2)
    closing(writer)
    began = time.monotonic()
    for step in (1, 2, 3, 4):
        begin(writer, store, step, (tmp_path / "checkpoint-1",))
        assert writer.in_flight == f"checkpoint-{step}"
        assert began <= writer.take() <= time.monotonic()
        assert not writer.ready
        assert writer.in_flight is None
    assert steps(store) == [1, 4]
    assert store.newest == tmp_path / "checkpoint-4"
    assert store.verify(tmp_path / "checkpoint-4") == []
    assert read_tree(tmp_path / "checkpoint-4", "optimizer")["w"].unique().tolist() == [4]
    assert store.expected is not None
    assert writer.held_bytes == 200


def test_ready_is_said_when_nothing_is_left_to_do(tmp_path: Path, closing: Any) -> None:
    writer, store = make(tmp_path, last=1)
    closing(writer)
    begin(writer, store, 1)
    writer.take()
    begin(writer, store, 2)
    while not writer.ready:
        time.sleep(0.001)
    assert steps(store) == [2]
    writer.take()


@pytest.mark.parametrize("at", range(1, 40, 3))
def test_a_disk_that_fails_anywhere_leaves_nothing_and_the_next_save_is_whole(
    tmp_path: Path, at: int, closing: Any
) -> None:
    writer, store = make(tmp_path)
    closing(writer)
    begin(writer, store, 1)
    writer.take()
    disk = FaultyDisk(Fault(at, errno.EIO))
    failed = None
    with writing_through(disk):
        try:
            begin(writer, store, 2)
            writer.take()
        except OSError as error:
            failed = error
        if failed is not None and writer.in_flight is None:
            store.drop(store.stage(2))
    assert (failed is not None) <= disk.hit
    assert steps(store) == ([1] if failed is not None else [1, 2])
    begin(writer, store, 3)
    writer.take()
    assert store.verify(tmp_path / "checkpoint-3") == []
    assert names(tmp_path) <= {"checkpoint-1", "checkpoint-2", "checkpoint-3"}


# Several processes, here several writers of one process


def several(root: Path, size: int, patience: float = 20.0) -> list[tuple[Writer, CheckpointStore]]:
    keys = HashStore()
    worlds = [Main(rank=rank, size=size) for rank in range(size)]
    return [make(root, world, SharedNotes(keys, patience)) for world in worlds]


def parts(writers: list[tuple[Writer, CheckpointStore]], step: int) -> list[Any]:
    """Fill one stage by every writer; then start all, the last one first."""
    filled = []
    for rank, (writer, store) in enumerate(writers):
        stage = store.stage(step)
        with writer.filling(stage) as held:
            write_tree(stage.folder, f"random_{rank}", {"w": torch.full((50,), float(rank))})
            for name in ("trainer_state.json", "progress.json"):
                (stage.folder / name).write_text("{}")
        filled.append((stage, held))
    return filled


def outcome(writer: Writer) -> str:
    try:
        writer.take()
    except Exception as error:
        return type(error).__name__
    return "done"


def test_the_main_process_commits_once_all_have_written(tmp_path: Path, closing: Any) -> None:
    writers = several(tmp_path, 3)
    for step in (1, 2):
        filled = parts(writers, step)
        for (writer, _), (stage, held) in zip(writers[:2], filled[:2], strict=True):
            closing(writer).start(stage, held, ())
        assert not writers[0][0].wait(0.05)
        assert not writers[1][0].wait(0.0)
        closing(writers[2][0]).start(*filled[2], ())
        assert [outcome(writer) for writer, _ in writers] == ["done"] * 3
        folder = tmp_path / f"checkpoint-{step}"
        assert writers[0][1].verify(folder) == []
        assert {f"random_{rank}.safetensors" for rank in range(3)} <= names(folder)
    assert names(tmp_path) == {"checkpoint-1", "checkpoint-2"}


@pytest.mark.parametrize("failing", [0, 1])
def test_a_part_that_fails_fails_the_whole(tmp_path: Path, failing: int, closing: Any) -> None:
    writers = several(tmp_path, 2)
    filled = parts(writers, 1)

    def fails() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    filled[failing][1].write_held = fails
    for (writer, _), (stage, held) in zip(writers, filled, strict=True):
        closing(writer).start(stage, held, ())
    expected = ["OthersFailedError", "OthersFailedError"]
    expected[failing] = "OSError"
    assert [outcome(writer) for writer, _ in writers] == expected
    assert names(tmp_path) == set()
    for (writer, _), (stage, held) in zip(writers, parts(writers, 2), strict=True):
        writer.start(stage, held, ())
    assert [outcome(writer) for writer, _ in writers] == ["done", "done"]


def test_nobody_waits_for_ever_for_a_process_that_is_gone(tmp_path: Path, closing: Any) -> None:
    writers = several(tmp_path, 2, patience=0.05)
    closing(writers[0][0]).start(*parts(writers, 1)[0], ())
    with pytest.raises(OthersFailedError, match="checkpoint-1 was not committed"):
        writers[0][0].take()
    assert names(tmp_path) == set()


def test_closing_ends_the_wait_for_others_and_tells(
    tmp_path: Path, closing: Any, caplog: pytest.LogCaptureFixture
) -> None:
    writers = several(tmp_path, 2, patience=600)
    closing(writers[0][0]).start(*parts(writers, 1)[0], ())
    writers[0][0].close(patience=0.05)
    assert "checkpoint-1 failed: OthersFailedError" in caplog.text
    assert names(tmp_path) == set()
    assert writers[0][0].held_bytes == 0
