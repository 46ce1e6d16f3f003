"""Files: which are read, how they are written, and what the command says and exits with."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from surestep import optional
from surestep.compat.migrate import files
from surestep.errors import MigrationError, MissingPackageError

OLD = "from transformers import TrainingArguments\nargs = TrainingArguments('out', no_cuda=True)\n"
NEW = OLD.replace("no_cuda", "use_cpu")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(OLD)
    return path


def test_the_difference_is_printed_and_the_file_stays(script: Path, migrate: Callable[..., int], capsys) -> None:
    assert migrate(script) == 0
    said = capsys.readouterr()
    assert "-args = TrainingArguments('out', no_cuda=True)\n+args = TrainingArguments('out', use_cpu=True)" in said.out
    assert f"{script}:2: no_cuda is use_cpu=True" in said.err
    assert script.read_text() == OLD


def test_check_tells_by_its_code(script: Path, migrate: Callable[..., int], capsys) -> None:
    assert migrate(script, "--check") == 1
    assert migrate(script, "--write", "--check") == 1
    assert script.read_text() == NEW
    assert migrate(script, "--check") == 0
    assert "Nothing is to be changed." in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("patch") is None, reason="patch is not installed")
@pytest.mark.parametrize("end", ["\n", ""])
def test_the_difference_can_be_applied(
    tmp_path: Path, migrate: Callable[..., int], monkeypatch, capsys, end: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("script.py").write_text(OLD.rstrip() + end)
    assert migrate("script.py") == 0
    subprocess.run(["patch", "-p1", "-s"], input=capsys.readouterr().out.encode(), check=True)
    assert Path("script.py").read_text() == NEW.rstrip() + end


def test_writing_keeps_the_mode_and_a_link(script: Path, migrate: Callable[..., int]) -> None:
    script.chmod(0o754)
    link = script.with_name("link.py")
    link.symlink_to(script)
    assert migrate(link, "--write") == 0
    assert script.read_text() == NEW
    assert link.is_symlink()
    assert stat.S_IMODE(script.stat().st_mode) == 0o754
    assert sorted(path.name for path in script.parent.iterdir()) == ["link.py", "script.py"]


def test_a_write_that_fails_leaves_the_file(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        files.write(script, NEW)
    assert script.read_text() == OLD
    assert list(script.parent.iterdir()) == [script]


def test_a_folder_is_gone_through(tmp_path: Path, migrate: Callable[..., int], capsys) -> None:
    for name in ("a.py", "b/c.yaml", "b/d.json", ".venv/e.py", "node_modules/f.py", "g.txt", "large.json"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(OLD if name.endswith("py") else '{"no_cuda": true, "output_dir": "out"}\n')
    (tmp_path / "large.json").write_text(" " * 1_000_001)
    (tmp_path / "b" / "broken.py").write_text("x = (\n")
    assert migrate(tmp_path, "--write") == 2
    said = capsys.readouterr().err
    assert f"'{tmp_path}/b/broken.py' is no Python: '(' was never closed (line 1)." in said
    changed = sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and "use_cpu" in path.read_text())
    assert changed == ["a.py", "c.yaml", "d.json"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("binary.py", b"\xff\xfe\x00", "is no text in UTF-8: .* at byte 0"),
        ("null.py", b"x = 1\0", "holds a null byte"),
        ("notes.txt", b"x", r"is none of \.py, \.yaml, \.yml, \.json, \.ipynb\. Name a script, a notebook"),
        ("notebook.ipynb", b"{}", "is no notebook of today's format: it has no cells"),
        ("python2.py", b"print 'x'", r"is no Python: .*\(line 1\)"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MigrationError, match=message):
        files.migrate_file(path)


def test_what_is_not_there_is_refused(tmp_path: Path, migrate: Callable[..., int], capsys) -> None:
    assert migrate(tmp_path / "none.py") == 2
    assert "none.py' does not exist. Name a script" in capsys.readouterr().err


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(MigrationError, match="neither a file nor a folder"):
        list(files.files_below(tmp_path / "pipe.py"))


def test_the_library_is_asked_for_by_name(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional, "installed", lambda module: module != "libcst")
    with pytest.raises(MissingPackageError, match=r"surestep migrate needs .*pip install 'surestep\[migrate\]'"):
        files.migrate_file(script)
