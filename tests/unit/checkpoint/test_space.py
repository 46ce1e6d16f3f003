"""How much room there is, and what is said where a checkpoint does not fit."""

from __future__ import annotations

import errno
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from tests.unit.checkpoint.stores import make_store, names, run_python, save

from surestep.checkpoint import space
from surestep.checkpoint.space import Room, Size, check_room, human, room_at

Usage = namedtuple("Usage", "total used free")


def test_the_room_of_a_folder_that_is_not_there_yet_is_that_of_its_disk(tmp_path: Path) -> None:
    found = room_at(tmp_path / "run" / "trial")
    assert found.free is not None
    assert found.free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)


def test_a_place_that_knows_of_no_size_has_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space.shutil, "disk_usage", lambda path: Usage(0, 0, 0))
    assert room_at(tmp_path).free is None
    check_room(Size(2**60, 2**50), tmp_path)


def test_the_limit_on_files_is_known() -> None:
    code = """
import resource
from pathlib import Path
from surestep.checkpoint.space import Size, check_room, room_at
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 9000))
print(room_at(Path(".")).file)
check_room(Size(9000, 5000), Path("."))
try:
    check_room(Size(9000, 5001), Path("."))
except OSError as error:
    print(error)
"""
    lines = run_python(code).stdout.splitlines()
    assert lines[0] == "5000"
    assert lines[1] == "[Errno 27] A file of 4.9 KiB is over the limit for files (ulimit -f): '.'"


@pytest.mark.parametrize(("free", "fits"), [(999, False), (1000, True), (None, True)])
def test_what_does_not_fit_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int | None, fits: bool
) -> None:
    store = make_store(tmp_path)
    save(store, 1)
    store.expect(Size(1000, 500))
    monkeypatch.setattr(space, "room_at", lambda folder: Room(free, None))
    if fits:
        save(store, 2)
        return
    with pytest.raises(OSError, match="not enough room on the disk, so that it was not begun") as caught:
        save(store, 2)
    assert caught.value.errno == errno.ENOSPC
    assert names(tmp_path) == {"checkpoint-1"}
    store.release()


def test_each_checkpoint_tells_how_large_the_next_will_be(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    assert store.expected is None
    folder = save(store, 1)
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert store.expected == Size(sum(sizes), max(sizes))
    store.release()


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 * 2**30, "3.0 GiB"), (2**53, "8192.0 TiB")],
)
def test_sizes_are_written_for_people(size: int, text: str) -> None:
    assert human(size) == text
