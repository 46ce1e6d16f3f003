"""Nothing that is written or read here is a pickle, and pickles that others plant do not run."""

from __future__ import annotations

import ast
import json
import os
import pickle
import pickletools
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import surestep
from surestep.checkpoint.layout import checkpoints_in
from surestep.checkpoint.manifest import Header, seal
from surestep.errors import CheckpointError
from tests.faults.test_damage import files_of, trainer_of
from tests.unit.checkpoint.stores import make_store

SOURCE = Path(surestep.__file__).parent
# What the original writes, and what its readers look for beside safetensors.
THEIRS = [
    "optimizer.pt",
    "optimizer.bin",
    "scheduler.pt",
    "scaler.pt",
    "rng_state.pth",
    "rng_state_0.pth",
    "training_args.bin",
    "pytorch_model.bin",
    "adapter_model.bin",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    trainer_of(folder).train()
    (folder / ".surestep-run.json").unlink()
    return folder


# What is written


def is_pickle(content: bytes) -> bool:
    """Say whether a file, from its beginning, is a whole pickle of any protocol."""
    try:
        return any(opcode.name == "STOP" for opcode, _, _ in pickletools.genops(content))
    except (ValueError, UnicodeDecodeError, IndexError):
        return False


def check_tensors(content: bytes) -> None:
    """Check that a file is a header in JSON and, without a gap, the bytes of the tensors that it lists."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header.pop("__metadata__", None)
    ends = sorted(entry["data_offsets"] for entry in header.values())
    assert [start for start, _ in ends] == [0, *(end for _, end in ends[:-1])]
    assert ends[-1][1] == len(content) - 8 - size


def test_the_look_for_pickles_finds_some(tmp_path: Path) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert is_pickle(pickle.dumps({"a": [1, 2.5]}, protocol=protocol))
    torch.save({"a": 1}, tmp_path / "a.pt")
    assert zipfile.is_zipfile(tmp_path / "a.pt")


def test_every_file_that_a_run_leaves_is_text_or_plain_tensors(made: Path) -> None:
    seen = set()
    for path in [path for path in made.rglob("*") if path.is_file()]:
        content = path.read_bytes()
        assert not zipfile.is_zipfile(path), path
        assert not is_pickle(content), path
        if path.suffix == ".safetensors":
            check_tensors(content)
        elif path.suffix == ".json":
            json.loads(content)
        else:
            assert path.name in {"train_log.jsonl", ".surestep-lock"}, path
        seen.add(path.name)
    assert set(files_of(made / "checkpoint-6")) <= seen


# What the source can do


def loads(tree: ast.AST) -> Iterator[str]:
    """Yield what in a module reads or writes pickles, under whatever name it is imported."""
    picklers = {"pickle", "cPickle", "_pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal", "pickletools"}
    modules = {"torch": {"load", "save"}, "numpy": {"load", "save", "savez"}, "np": {"load", "save", "savez"}}
    modules |= {"pd": {"read_pickle"}, "pandas": {"read_pickle"}, "torch.jit": {"load", "save"}}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in picklers)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            wanted = modules.get(node.module, set())
            yield from (f"{node.module}.{one.name}" for one in node.names if one.name in wanted)
            if node.module.partition(".")[0] in picklers:
                yield node.module
        elif isinstance(node, ast.Attribute) and node.attr in modules.get(ast.unparse(node.value), ()):
            yield ast.unparse(node)
        elif isinstance(node, ast.keyword) and node.arg in {"allow_pickle", "pickle_module"}:
            yield str(node.arg)
        elif isinstance(node, ast.Constant) and node.value in picklers:
            yield str(node.value)


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import dill.source as d",
        "require('joblib', 'fun')",
        "import torch\ntorch.load('a')",
        "from torch import load as read",
        "np.load('a', allow_pickle=True)",
        "torch.jit.load('a')",
    ],
)
def test_the_look_through_the_source_finds_some(text: str) -> None:
    assert list(loads(ast.parse(text)))


def test_one_place_reads_pickles_and_that_as_data_only() -> None:
    found = {
        path.relative_to(SOURCE).as_posix(): uses
        for path in sorted(SOURCE.rglob("*.py"))
        if (uses := list(loads(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert found == {"checkpoint/foreign/pickles.py": ["torch.load"]}
    call = next(
        node
        for node in ast.walk(ast.parse((SOURCE / "checkpoint/foreign/pickles.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    )
    assert {word.arg: ast.unparse(word.value) for word in call.keywords}["weights_only"] == "True"


# Planted


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.marker}'",)


def archived(payload: Payload, path: Path) -> None:
    torch.save({"state": {}, "param_groups": [], "x": payload}, path)


def plain(payload: Payload, path: Path) -> None:
    path.write_bytes(pickle.dumps(payload))


WAYS: dict[str, Callable[[Payload, Path], None]] = {"archive": archived, "plain": plain}


@pytest.fixture
def planted(made: Path, scratch: Path) -> tuple[Path, Payload]:
    """Return the newest checkpoint of a run that is to go on, and what is planted in it."""
    shutil.copytree(made, scratch / "run")
    shutil.rmtree(scratch / "run" / "checkpoint-6")
    return scratch / "run" / "checkpoint-4", Payload(scratch / "executed")


@pytest.mark.parametrize("way", WAYS)
def test_one_in_the_place_of_any_file_is_damage(way: str, planted: tuple[Path, Payload]) -> None:
    checkpoint, payload = planted
    for name in files_of(checkpoint):
        content = (checkpoint / name).read_bytes()
        WAYS[way](payload, checkpoint / name)
        found = make_store(checkpoint.parent).newest_valid()
        assert found.path == checkpoint.with_name("checkpoint-2")
        assert name in found.passed_over[0][1][0]
        (checkpoint / name).write_bytes(content)
    assert not payload.marker.exists()


# What is read to go on from. The others are read for what they say of the run, if at all.
NEEDED = {
    "best.json",
    "ema.json",
    "model.safetensors",
    "optimizer.json",
    "optimizer.safetensors",
    "progress.json",
    "random_0.json",
    "random_0.safetensors",
    "scheduler.json",
    "trainer_state.json",
}


def test_one_that_the_manifest_was_made_to_fit_is_refused_by_name(planted: tuple[Path, Payload]) -> None:
    checkpoint, payload = planted
    names = [name for name in files_of(checkpoint) if name != "manifest.json"]
    assert set(names) >= NEEDED
    for name in names:
        content = (checkpoint / name).read_bytes()
        plain(payload, checkpoint / name)
        seal(checkpoint, Header(4))
        refused = ""
        try:
            trainer_of(checkpoint.parent, save_strategy="no").train(resume_from_checkpoint=str(checkpoint))
        except CheckpointError as error:
            refused = str(error)
        assert name in refused or (name not in NEEDED and not refused), name
        assert not payload.marker.exists()
        (checkpoint / name).write_bytes(content)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", THEIRS)
def test_one_under_a_name_of_the_originals_beside_ours_is_not_even_read(
    name: str, way: str, planted: tuple[Path, Payload]
) -> None:
    checkpoint, payload = planted
    WAYS[way](payload, checkpoint / name)
    trainer = trainer_of(checkpoint.parent)
    trainer.train(resume_from_checkpoint=True)
    assert trainer._first_step == 4
    assert not payload.marker.exists()


@pytest.mark.parametrize("way", WAYS)
def test_weights_that_are_nothing_but_a_pickle_are_refused(way: str, planted: tuple[Path, Payload]) -> None:
    checkpoint, payload = planted
    (checkpoint / "model.safetensors").unlink()
    WAYS[way](payload, checkpoint / "pytorch_model.bin")
    seal(checkpoint, Header(4))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin .*nothing in it has been run"):
        trainer_of(checkpoint.parent).train(resume_from_checkpoint=str(checkpoint))
    assert not payload.marker.exists()


def test_the_payload_is_a_real_one(planted: tuple[Path, Payload]) -> None:
    _, payload = planted
    pickle.loads(pickle.dumps(payload))
    assert payload.marker.exists()


def test_a_folder_of_pickles_alone_is_no_checkpoint_of_ours(scratch: Path) -> None:
    folder, payload = scratch / "run" / "checkpoint-1", Payload(scratch / "executed")
    folder.mkdir(parents=True)
    for name in [*THEIRS, *NEEDED, "manifest.json"]:
        plain(payload, folder / name)
    store = make_store(scratch / "run")
    assert store.newest_valid().path is None
    assert store.latest() is None
    assert [path.name for path in checkpoints_in(store.root)] == ["checkpoint-1"]
    assert not payload.marker.exists()
