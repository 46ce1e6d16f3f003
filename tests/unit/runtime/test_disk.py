"""The seam between this library and a disk. What stands on it is tested with faults in `tests/faults`."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from surestep.runtime.disk import Disk, disk, disk_error, make_folders, replace_text, write_text, writing_through


def test_another_disk_serves_every_thread_of_the_process_for_a_while(tmp_path: Path) -> None:
    other, seen = Disk(), []
    with writing_through(other):
        thread = threading.Thread(target=lambda: seen.append(disk()))
        thread.start()
        thread.join()
        assert disk() is other
    assert seen == [other]
    assert disk() is not other


def test_folders_are_made_as_far_as_they_are_not_there(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "c"
    assert make_folders(deep) == [tmp_path / "a", tmp_path / "a" / "b", deep]
    assert make_folders(deep) == []


def test_a_folder_that_another_process_makes_meanwhile_is_welcome(tmp_path: Path) -> None:
    class Late(Disk):
        def make_folder(self, path: Path) -> None:
            path.mkdir()
            super().make_folder(path)

    with writing_through(Late()):
        make_folders(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "")
    with pytest.raises(FileExistsError):
        make_folders(tmp_path / "a" / "b")


def test_a_text_takes_the_place_of_another_or_nothing_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    replace_text(path, "old")

    class Full(Disk):
        def sync(self, path: Path) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with writing_through(Full()), pytest.raises(OSError, match="No space left"):
        replace_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    replace_text(path, "é")
    assert path.read_text(encoding="utf-8") == "é"


def test_an_error_while_writing_names_the_file(tmp_path: Path) -> None:
    def parts():  # type: ignore[no-untyped-def]
        yield b"a"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: .*a\.bin") as caught:
        Disk().write(tmp_path / "a.bin", parts())
    assert caught.value.filename == str(tmp_path / "a.bin")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Error while serializing: I/O error: No space left on device (os error 28)", errno.ENOSPC),
        ("File too large (os error 27)", errno.EFBIG),
        ("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0", errno.EIO),
        ("PytorchStreamWriter failed writing file data/0: file write failed", errno.EIO),
        ("[enforce fail at alloc_cpu.cpp:127] not enough memory", None),
    ],
)
def test_what_libraries_say_of_the_disk_is_known(text: str, number: int | None) -> None:
    found = disk_error(RuntimeError(text))
    assert (None if found is None else found.errno) == number
