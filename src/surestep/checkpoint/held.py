"""The content of a checkpoint as it was at the save, held in host memory while it is written.

`Buffers` owns that memory. It is made at the first save and serves every later one, file by file, so that a save
allocates nothing and memory for one checkpoint is enough: nothing is copied into it while it is written from. Where the
tensors are on a CUDA device it is page-locked: the copies are put in line behind the computation that made the values
and before whatever changes them next, and the host waits for none of it.

`HeldFiles` stands in for the disk while a folder is filled. Of a file of tensors it takes a copy and leaves an empty
file in the place; everything else is small, and written at once. `write` gives the files their content, in any thread.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from torch import Tensor

from surestep.checkpoint.tensors import Entry, TensorParts, flat_bytes, header_of
from surestep.logs import get_logger, warn_once
from surestep.runtime.disk import Disk, disk, writing_through

_logger = get_logger(__name__)
# The most that one call writes, in bytes.
_PIECE = 64 * 2**20
_cuda: Any = torch.cuda


class Buffers:
    """Host memory for the files of a checkpoint, by name, kept from save to save.

    `device` is where the tensors come from.
    """

    def __init__(self, device: torch.device) -> None:
        self._locks_pages = device.type == "cuda"
        self._by_name: dict[str, Tensor] = {}
        self._locked: set[str] = set()

    def of(self, name: str, size: int) -> Tensor:
        """Return the memory of a file: `size` bytes, the same as the last time where those were enough."""
        if name not in self._by_name or self._by_name[name].numel() < size:
            self._give_back(name)
            self._by_name[name] = torch.empty(size, dtype=torch.uint8)
            if self._locks_pages and size:
                self._lock_pages(name)
        return self._by_name[name][:size]

    @property
    def total(self) -> int:
        """How many bytes are held."""
        return sum(buffer.numel() for buffer in self._by_name.values())

    def close(self) -> None:
        """Give all memory back."""
        for name in list(self._by_name):
            self._give_back(name)

    def _lock_pages(self, name: str) -> None:
        # Of the size asked for: torch's own page-locked memory comes in powers of two.
        buffer = self._by_name[name]
        failed = int(_cuda.cudart().cudaHostRegister(buffer.data_ptr(), buffer.numel(), 0))
        if failed:
            warn_once(_logger, f"Memory for save_async could not be page-locked (CUDA error {failed}): copies wait.")
        else:
            self._locked.add(name)

    def _give_back(self, name: str) -> None:
        buffer = self._by_name.pop(name, None)
        if buffer is not None and name in self._locked:
            self._locked.discard(name)
            # A save that failed may have left copies under way.
            _cuda.synchronize()
            _cuda.cudart().cudaHostUnregister(buffer.data_ptr())


@dataclass(frozen=True, slots=True)
class _File:
    """A file to write: its header, and its tensors in memory that is ours, one after the other."""

    header: bytes
    content: Tensor

    def parts(self) -> Iterator[bytes | memoryview]:
        yield self.header
        for start in range(0, self.content.numel(), _PIECE):
            yield self.content[start : start + _PIECE].numpy().data


class _Spec(Protocol):
    """A tensor on the host, as the safetensors library describes it."""

    dtype: str
    shape: list[int]
    data_ptr: int
    data_len: int


class HeldFiles(Disk):
    """A disk of which the files of tensors below one folder are written later. All else goes to the disk beneath."""

    def __init__(self, folder: Path, beneath: Disk, buffers: Buffers) -> None:
        self._folder = folder
        self._beneath = beneath
        self._buffers = buffers
        self._files: dict[Path, _File] = {}
        self._times: Counter[str] = Counter()
        self._copied: Any = None

    def write(self, path: Path, parts: Iterable[bytes | memoryview]) -> None:
        """Copy tensors and make an empty file for them; write anything else."""
        if isinstance(parts, TensorParts) and self.holds(path):
            size = sum(tensor.nbytes for tensor in parts.tensors)
            self._hold(path, parts.header, size, map(_bytes_to_copy, parts.tensors))
        else:
            self._beneath.write(path, parts)

    def holds(self, path: Path) -> bool:
        """Say whether a file would be held."""
        return path.is_relative_to(self._folder)

    def hold_for_library(self, path: Path, specs: Mapping[str, _Spec], metadata: Mapping[str, str] | None) -> None:
        """Hold a file of tensors that the safetensors library was about to write."""
        ordered = sorted(specs, key=lambda name: (-_bits(specs[name].dtype), name))
        listed = [specs[name] for name in ordered]
        entries = [Entry(name, one.dtype, one.shape, one.data_len) for name, one in zip(ordered, listed, strict=True)]
        values = (_at(one.data_ptr, one.data_len) for one in listed)
        self._hold(path, header_of(entries, metadata), sum(one.data_len for one in listed), values)

    def _hold(self, path: Path, header: bytes, size: int, values: Iterable[Tensor]) -> None:
        self._beneath.write(path, [])
        name = path.relative_to(self._folder).as_posix()
        # One that was written before may have got another name since.
        content = self._buffers.of(f"{name} {self._times[name]}", size)
        self._times[name] += 1
        end = 0
        for value in values:
            start, end = end, end + value.numel()
            content[start:end].copy_(value, non_blocking=value.is_cuda)
        self._files[path] = _File(header, content)

    def copied(self) -> None:
        """Note that everything is held: what is under way on the device is waited for before it is written."""
        if _cuda.is_initialized():
            self._copied = _cuda.Event()
            self._copied.record()

    def write_held(self) -> None:
        """Give the files their content; the thread that does it waits for the copies from the device.

        Raises:
            OSError: the disk is full, or cannot be written to.
        """
        if self._copied is not None:
            self._copied.synchronize()
        for path, file in self._files.items():
            self._beneath.write(path, file.parts())

    def read(self, path: Path) -> BufferedReader:
        """Open a file to be read."""
        return self._beneath.read(path)

    def sync(self, path: Path) -> None:
        """Wait for the disk, but not for what is in the folder: all of it is waited for once it is complete."""
        if not self.holds(path):
            self._beneath.sync(path)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or folder another name."""
        self._beneath.rename(source, target)
        self._files = {
            target / path.relative_to(source) if path.is_relative_to(source) else path: file
            for path, file in self._files.items()
            if not (path.is_relative_to(target) and path != source)
        }

    def make_folder(self, path: Path) -> None:
        """Make a folder."""
        self._beneath.make_folder(path)

    def remove_file(self, path: Path) -> None:
        """Remove a file."""
        self._beneath.remove_file(path)
        self._files.pop(path, None)

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        self._beneath.remove_folder(path)

    def set_mode(self, path: Path, mode: int) -> None:
        """Set who may read and write a file."""
        self._beneath.set_mode(path, mode)


@contextmanager
def holding(folder: Path, buffers: Buffers) -> Iterator[HeldFiles]:
    """Hold the tensors that the body writes below `folder`, by this library or by safetensors."""
    held = HeldFiles(folder, disk(), buffers)
    with writing_through(held), _library_through(held):
        yield held
    held.copied()


@contextmanager
def _library_through(held: HeldFiles) -> Iterator[None]:
    """Have what models that save themselves write held as well: they write by the safetensors library.

    Its function writes without letting other threads run, so that it is of no use in one. Where a version of it hands
    over something else than we know, it writes itself, at once.
    """
    library = vars(safetensors.torch)
    own = library.get("serialize_file")

    def serialize_file(tensors: Any, filename: Any, metadata: Any = None) -> None:
        path = Path(filename)
        values: Iterable[Any] = getattr(tensors, "values", tuple)()
        known = all(hasattr(value, name) for value in values for name in ("dtype", "shape", "data_ptr", "data_len"))
        if known and held.holds(path):
            held.hold_for_library(path, tensors, metadata)
        else:
            assert own is not None
            own(tensors, filename, metadata=metadata)

    if own is None:
        yield
        return
    library["serialize_file"] = serialize_file
    try:
        yield
    finally:
        library["serialize_file"] = own


def _bytes_to_copy(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor, where it is if they lie there in order, else on the host."""
    plain = tensor.is_contiguous() and not (tensor.is_conj() or tensor.is_neg())
    return flat_bytes(tensor if plain else tensor.detach().cpu())


def _at(address: int, size: int) -> Tensor:
    """Return the bytes at an address of the host."""
    if not size:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer((ctypes.c_ubyte * size).from_address(address), dtype=torch.uint8)


def _bits(code: str) -> int:
    """Return the width of an element by the code of its dtype, such as 16 for BF16."""
    digits = "".join(filter(str.isdigit, code.partition("_")[0]))
    return int(digits) if digits else 8
