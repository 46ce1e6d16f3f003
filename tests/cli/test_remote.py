"""surestep verify, inspect and diff, on checkpoints behind URLs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import Ended
from tests.small import quick
from tests.unit.checkpoint.remote_stores import URL, Faulty, remote

Run = Callable[..., Ended]


@pytest.fixture
def trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Path]:
    """Return the folder of a run with checkpoints of steps 2 and 4, here and behind the URL."""
    Faulty.reset()
    folder = tmp_path / "trained"
    quick(folder, save_strategy="steps", save_steps=2, max_steps=4, logging_steps=1, save_remote=URL).train()
    capsys.readouterr()
    yield folder
    Faulty.reset()


def test_a_run_that_is_whole_and_one_that_is_not(here: Run, trained: Path) -> None:
    verified = here("verify", URL)
    assert verified.code == 0, verified.err
    assert "checkpoint-2" in verified.out
    assert "checkpoint-4" in verified.out
    folder = remote().folder
    content = folder.read("checkpoint-4/model.safetensors")
    folder.write("checkpoint-4/model.safetensors", content[:-1] + bytes([content[-1] ^ 1]))
    folder.remove("checkpoint-2/manifest.json")
    verified = here("verify", URL, "--json")
    assert verified.code == 1
    damaged = {Path(one["folder"]).name: one["problems"] for one in json.loads(verified.out)}
    assert damaged == {
        "checkpoint-2": ["it is incomplete: it has no manifest.json, which is put last"],
        "checkpoint-4": ["model.safetensors is damaged: its checksum differs"],
    }
    assert json.loads(verified.out)[0]["folder"] == f"{URL}/checkpoint-2"


def test_one_checkpoint_file_by_file(here: Run, trained: Path) -> None:
    verified = here("verify", f"{URL}/checkpoint-4")
    assert verified.code == 0, verified.err
    assert "model.safetensors" in verified.out
    assert "damaged" not in verified.out


def test_nothing_there(here: Run, trained: Path) -> None:
    assert here("verify", f"{URL}/checkpoint-9").code == 1
    nothing = here("verify", "faulty://elsewhere")
    assert nothing.code == 2
    assert "faulty://elsewhere" in nothing.err
    for command in ("inspect", "diff"):
        missing = here(command, *[f"{URL}/checkpoint-9"] * (2 if command == "diff" else 1))
        assert missing.code == 2
        assert "incomplete" in missing.err


def test_what_is_in_it_without_its_numbers(here: Run, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def read(self: Faulty, path: str, start: int | None = None, end: int | None = None, **_: object) -> bytes:
        asked.append((Path(path).name, start, end))
        return bytes(self.store[path].getbuffer()[start:end])

    monkeypatch.setattr(Faulty, "cat_file", read)
    # So small that no file of tensors is read whole.
    monkeypatch.setattr("surestep.checkpoint.remote._FIRST_READ", 16)
    there = here("inspect", f"{URL}/checkpoint-4", "--json")
    assert there.code == 0, there.err
    read_of = {name: end for name, start, end in asked if name.endswith(".safetensors")}
    assert read_of
    assert all(end < (trained / "checkpoint-4" / name).stat().st_size for name, end in read_of.items())
    beside = json.loads(here("inspect", trained / "checkpoint-4", "--json").out)
    assert json.loads(there.out) == beside | {"folder": f"{URL}/checkpoint-4"}


def test_what_differs(here: Run, trained: Path) -> None:
    assert here("diff", f"{URL}/checkpoint-4", trained / "checkpoint-4").code == 0
    differs = here("diff", f"{URL}/checkpoint-4", f"{URL}/checkpoint-2")
    assert differs.code == 1
    assert "layer.weight" in differs.out
    remote().folder.write("checkpoint-2/model.safetensors", b"0" * 144)
    assert here("diff", f"{URL}/checkpoint-4", f"{URL}/checkpoint-2").code == 2
