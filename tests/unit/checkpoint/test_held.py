"""What is held is the content of that moment, in the same memory at each save, and the file that a disk would have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tests.faults.disk import FaultyDisk
from tests.parity.tiny import llama
from torch import Tensor, nn

from surestep.checkpoint.held import Buffers, HeldFiles, holding
from surestep.checkpoint.tensors import read_tensors, write_tensors
from surestep.checkpoint.tree import read_tree, write_tree
from surestep.checkpoint.weights import save_weights
from surestep.errors import CheckpointError
from surestep.runtime.disk import disk, replace_text, writing_through

CPU = torch.device("cpu")


@pytest.fixture
def buffers() -> Buffers:
    return Buffers(CPU)


def kinds() -> dict[str, Tensor]:
    """Tensors of every width and several layouts."""
    whole = torch.arange(24.0).reshape(4, 6)
    return {
        "float32": torch.randn(3, 5),
        "bfloat16": torch.randn(7).bfloat16(),
        "float64": torch.randn(2, 2, dtype=torch.float64),
        "int64": torch.tensor(3),
        "bool": torch.tensor([True, False, True]),
        "turned": torch.randn(4, 3).T,
        "part": whole[:, 2:4],
        "conjugate": torch.randn(3, dtype=torch.complex64).conj(),
        "empty": torch.empty(0, 3),
    }


def fill(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_what_is_held_is_the_content_of_that_moment(tmp_path: Path, buffers: Buffers) -> None:
    tensors = kinds()
    write_tensors(tmp_path / "at-once", tensors, {"format": "pt"})
    folder = fill(tmp_path / "stage")
    with holding(folder, buffers) as held:
        write_tensors(folder / "later", tensors, {"format": "pt"})
    assert (folder / "later").read_bytes() == b""
    for tensor in tensors.values():
        tensor.zero_()
    held.write_held()
    assert (folder / "later").read_bytes() == (tmp_path / "at-once").read_bytes()


def test_trees_share_their_tensors_as_they_did(tmp_path: Path, buffers: Buffers) -> None:
    base = torch.arange(10.0)
    tree = {"whole": base, "part": base[3:7], "text": "x" * 1000, "number": 3}
    folder = fill(tmp_path / "stage")
    with holding(folder, buffers) as held:
        write_tree(folder, "state", tree)
        # What holds no tensors is small, and there at once.
        assert (folder / "state.json").stat().st_size > 1000
    base.zero_()
    held.write_held()
    found = read_tree(folder, "state")
    assert torch.equal(found["whole"], torch.arange(10.0))
    assert torch.equal(found["part"], torch.arange(3.0, 7.0))
    assert found["part"].untyped_storage().data_ptr() == found["whole"].untyped_storage().data_ptr()


def test_every_save_uses_the_same_memory(tmp_path: Path, buffers: Buffers, monkeypatch: pytest.MonkeyPatch) -> None:
    made, own = [], torch.empty
    monkeypatch.setattr("torch.empty", lambda *size, **how: made.append(size) or own(*size, **how))

    def save(number: int, size: int = 1000) -> list[int]:
        folder = fill(tmp_path / f"stage-{number}")
        with holding(folder, buffers) as held:
            write_tensors(folder / "model.safetensors", {"w": torch.full((size,), float(number))})
            write_tree(folder, "optimizer", {"m": torch.full((2 * size,), float(number))})
        held.write_held()
        assert read_tensors(folder / "model.safetensors")["w"].unique().tolist() == [number]
        return [buffer.data_ptr() for buffer in buffers._by_name.values()]

    first = save(1)
    large = [size for size in made if size in {(4000,), (8000,)}]
    assert large == [(4000,), (8000,)]
    made.clear()
    assert save(2) == first
    assert save(3, size=500) == first
    assert [size for size in made if isinstance(size[0], int) and size[0] >= 1000] == []
    assert buffers.total == 12_000
    save(4, size=1500)
    assert buffers.total == 18_000
    buffers.close()
    assert buffers.total == 0


def test_one_name_written_twice_is_held_twice(tmp_path: Path, buffers: Buffers) -> None:
    folder = fill(tmp_path / "stage")
    with holding(folder, buffers) as held:
        write_tensors(folder / "new", {"w": torch.ones(5)})
        disk().rename(folder / "new", folder / "first")
        write_tensors(folder / "new", {"w": torch.zeros(5)})
        (folder / "inner").mkdir()
        write_tensors(folder / "inner" / "third", {"w": torch.full((5,), 3.0)})
        disk().rename(folder / "inner", folder / "moved")
        write_tensors(folder / "gone", {"w": torch.ones(5)})
        disk().remove_file(folder / "gone")
    held.write_held()
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = {path.relative_to(folder).as_posix(): read_tensors(path)["w"][0].item() for path in files}
    assert found == {"first": 1, "new": 0, "moved/third": 3}


def test_only_what_is_below_the_folder_is_held_and_nothing_there_is_waited_for(tmp_path: Path) -> None:
    beneath, folder = FaultyDisk(), fill(tmp_path / "stage")
    held = HeldFiles(folder, beneath, Buffers(CPU))
    with writing_through(held):
        write_tensors(tmp_path / "beside", {"w": torch.ones(2)})
        replace_text(tmp_path / "text", "outside")
        before = len(beneath.operations)
        replace_text(folder / "text", "inside")
    assert (tmp_path / "beside").stat().st_size > 8
    assert [name for name in beneath.operations[:before] if name.startswith("sync")]
    assert not [name for name in beneath.operations[before:] if name.startswith("sync")]
    assert (folder / "text").read_text() == "inside"


def test_what_cannot_be_stored_is_refused_at_once(tmp_path: Path, buffers: Buffers) -> None:
    folder = fill(tmp_path / "stage")
    with pytest.raises(CheckpointError, match="meta"), holding(folder, buffers):
        write_tensors(folder / "later", {"w": torch.empty(2, device="meta")})
    assert type(disk()).__name__ == "Disk"


class Device:
    """Stands for CUDA: notes which memory is page-locked."""

    def __init__(self, error: int) -> None:
        self.error = error
        self.locked: dict[int, int] = {}
        self.waits = 0

    def cudart(self) -> Device:
        return self

    def synchronize(self) -> None:
        self.waits += 1

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # noqa: N802 - CUDA's name
        if not self.error:
            self.locked[address] = size
        return self.error

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802 - CUDA's name
        assert self.waits, "memory is given back while something may still be copied into it"
        del self.locked[address]
        return 0


def test_memory_for_a_device_is_page_locked_as_long_as_it_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(0)
    monkeypatch.setattr("surestep.checkpoint.held._cuda", device)
    buffers = Buffers(torch.device("cuda"))
    first = buffers.of("model", 1000)
    assert device.locked == {first.data_ptr(): 1000}
    assert buffers.of("model", 500).data_ptr() == first.data_ptr()
    assert buffers.of("empty", 0).numel() == 0
    larger = buffers.of("model", 3000)
    assert device.locked == {larger.data_ptr(): 3000}
    buffers.close()
    assert device.locked == {}


def test_memory_that_cannot_be_page_locked_is_used_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("surestep.checkpoint.held._cuda", Device(2))
    buffers = Buffers(torch.device("cuda"))
    assert buffers.of("model", 1000).numel() == 1000
    assert "could not be page-locked (CUDA error 2)" in caplog.text
    buffers.close()


# Models that save themselves


def written_by(model: nn.Module, folder: Path, **how: Any) -> dict[str, bytes]:
    save_weights(model, folder, original_format=False, **how)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("limit", ["50GB", "5KB"])
def test_a_model_of_transformers_is_held_and_writes_the_same_files(
    tmp_path: Path, buffers: Buffers, limit: str
) -> None:
    model = llama(tie_word_embeddings=True)
    expected = written_by(model, tmp_path / "at-once", max_shard_size=limit)
    folder = fill(tmp_path / "stage")
    with holding(folder, buffers) as held:
        save_weights(model, folder, original_format=False, max_shard_size=limit)
    names = {path.name for path in folder.glob("*.safetensors")}
    assert names == {name for name in expected if name.endswith(".safetensors")}
    assert (len(names) > 1) is (limit == "5KB")
    assert all((folder / name).stat().st_size == 0 for name in names)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    held.write_held()
    assert {path.name for path in folder.iterdir()} == set(expected)
    for path in folder.iterdir():
        if path.name in names:
            ours, theirs = read_tensors(path), read_tensors(tmp_path / "at-once" / path.name)
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)
            assert path.stat().st_size == len(expected[path.name])
            assert path.stat().st_mode == (tmp_path / "at-once" / path.name).stat().st_mode
        else:
            assert path.read_bytes() == expected[path.name]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_adapters_are_held(tmp_path: Path, buffers: Buffers) -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(llama(), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    written_by(model, tmp_path / "at-once")
    folder = fill(tmp_path / "stage")
    with holding(folder, buffers) as held:
        save_weights(model, folder, original_format=False)
    assert (folder / "adapter_model.safetensors").stat().st_size == 0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7)
    held.write_held()
    ours, theirs = (read_tensors(path / "adapter_model.safetensors") for path in (folder, tmp_path / "at-once"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_library_writes_elsewhere_as_always(tmp_path: Path, buffers: Buffers) -> None:
    folder, own = fill(tmp_path / "stage"), safetensors.torch.serialize_file
    with holding(folder, buffers):
        safetensors.torch.save_file({"w": torch.ones(3)}, tmp_path / "beside.safetensors")
    assert read_tensors(tmp_path / "beside.safetensors")["w"].tolist() == [1, 1, 1]
    assert safetensors.torch.serialize_file is own


def test_what_the_library_describes_otherwise_it_writes_itself(
    tmp_path: Path, buffers: Buffers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to 0.6 a tensor was a dict with its bytes."""
    folder, written = fill(tmp_path / "stage"), []
    monkeypatch.setattr("safetensors.torch.serialize_file", lambda *given, **named: written.append((given, named)))
    values = {"w": {"dtype": "float32", "shape": [1], "data": bytes(4)}}
    with holding(folder, buffers):
        safetensors.torch.serialize_file(values, "model.safetensors", metadata={"format": "pt"})
    assert written == [((values, "model.safetensors"), {"metadata": {"format": "pt"}})]
