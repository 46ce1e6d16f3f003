"""Pickled files are data or they are refused; nothing in them runs."""

from __future__ import annotations

import functools
import os
import pickle
import random
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from surestep.checkpoint.foreign.pickles import read_pickle
from surestep.errors import CheckpointError


def test_data_comes_back_as_it_was(tmp_path: Path) -> None:
    content = {
        "tensor": torch.arange(6.0).reshape(2, 3),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "array": np.arange(3, dtype=np.uint32),
        "scalars": [np.float64(0.1), np.float32(0.5), np.int64(3), np.bool_(True)],
        "containers": (1, [2.5, None], {"a": OrderedDict(b=True)}, {"set"}),
        "text": "é",
    }
    for zipped in (True, False):
        torch.save(content, tmp_path / "file.pt", _use_new_zipfile_serialization=zipped)
        found = read_pickle(tmp_path / "file.pt")
        assert torch.equal(found["tensor"], content["tensor"])
        assert torch.equal(found["half"], content["half"])
        assert (found["array"] == content["array"]).all()
        assert found["array"].dtype == np.uint32
        assert found["scalars"] == content["scalars"]
        assert [type(value) for value in found["scalars"]] == [type(value) for value in content["scalars"]]
        assert (found["containers"], found["text"]) == (content["containers"], content["text"])


@pytest.mark.parametrize("name", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_generators_of_both_generations_of_numpy(name: str, tmp_path: Path) -> None:
    state = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.get_rng_state()}
    torch.save(state, tmp_path / "rng.pth", _use_new_zipfile_serialization=False)
    raw = (tmp_path / "rng.pth").read_bytes()
    assert b"numpy._core.multiarray" in raw
    (tmp_path / "rng.pth").write_bytes(raw.replace(b"numpy._core.multiarray", name.encode()))
    found = read_pickle(tmp_path / "rng.pth")
    assert found["python"] == state["python"]
    assert (found["numpy"][1] == state["numpy"][1]).all()


class Calls:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.made = function, arguments

    def __reduce__(self) -> Any:
        return self.made


def scripted(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(1, 1)).save(str(path))


HOSTILE: dict[str, Callable[[Path, str], Any]] = {
    "a command": lambda path, command: torch.save(Calls(os.system, command), path),
    "an expression": lambda path, command: torch.save(Calls(eval, f"__import__('os').system({command!r})"), path),
    "a partial": lambda path, command: torch.save(Calls(functools.partial, os.system, command), path),
    "an array of objects": lambda path, command: torch.save(np.array([Calls(os.system, command)], dtype=object), path),
    "a plain pickle": lambda path, command: path.write_bytes(pickle.dumps(Calls(os.system, command))),
    "words of the oldest protocol": lambda path, command: path.write_bytes(f"cos\nsystem\n(S'{command}'\ntR.".encode()),
    "a module": lambda path, command: torch.save(torch.nn.Linear(1, 1), path),
    "a script": lambda path, command: scripted(path),
    "a page": lambda path, command: path.write_text("<html>not found</html>"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_anything_else_is_refused_and_does_not_run(kind: str, tmp_path: Path) -> None:
    path, marker = tmp_path / "file.pt", tmp_path / "executed"
    HOSTILE[kind](path, f"touch {marker}")
    with pytest.raises(CheckpointError, match=r"file\.pt (asks for '|holds something else).* nothing in it") as raised:
        read_pickle(path)
    assert not marker.exists()
    # torch's own advice, to read it nevertheless, is not passed on.
    assert "weights_only" not in str(raised.value)
    assert raised.value.__cause__ is raised.value.__context__ is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken"])
def test_damage_is_called_damage(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"file\.pt is damaged and cannot be read"):
        read_pickle(tmp_path / "file.pt")


def test_a_file_that_is_not_there_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_pickle(tmp_path / "file.pt")
