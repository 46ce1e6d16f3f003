"""One file of named tensors in the safetensors format.

Written here and not by the safetensors library for three reasons: a full disk surfaces as an `OSError` with its number,
tensors leave an accelerator one at a time, and the file gets the permissions that the user's mask asks for. The format:
https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open

from surestep.errors import CheckpointError
from surestep.runtime.disk import disk

_CODES: Final = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ALIGNMENT = 8


@dataclass(frozen=True, slots=True)
class TensorParts:
    """The parts of a file of tensors: a header, and the bytes of each. One at a time is copied from an accelerator."""

    header: bytes
    tensors: Sequence[torch.Tensor]

    def __iter__(self) -> Iterator[bytes | memoryview]:
        yield self.header
        for tensor in self.tensors:
            yield raw_bytes(tensor).numpy().data


@dataclass(frozen=True, slots=True)
class Entry:
    """What the header says of a tensor: its name, the code of its dtype, its shape, and how many bytes it has."""

    name: str
    code: str
    shape: Sequence[int]
    num_bytes: int


def native(dtype: torch.dtype) -> bool:
    """Say whether the format has a code for `dtype`."""
    return dtype in _CODES


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write `tensors` to `path`, whatever their device and strides; memory that two of them share is written twice.

    Raises:
        CheckpointError: a tensor is not dense, is on the meta device, or has a dtype without a code.
        OSError: the disk is full, or cannot be written to.
    """
    if sys.byteorder != "little":  # pragma: no cover
        raise CheckpointError("Checkpoints are written on little-endian machines only.")
    # Wide elements first: then every tensor starts at a multiple of its element's size.
    names = sorted(tensors, key=lambda name: -tensors[name].element_size())
    entries = [Entry(name, _code(name, tensors[name]), tensors[name].shape, tensors[name].nbytes) for name in names]
    disk().write(path, TensorParts(header_of(entries, metadata), [tensors[name] for name in names]))


def header_of(entries: Iterable[Entry], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the header of a file of tensors, which follow one after the other in the order of the entries."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for entry in entries:
        start, end = end, end + entry.num_bytes
        header[entry.name] = {"dtype": entry.code, "shape": list(entry.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def read_tensors(path: Path, *, mapped: bool = False) -> dict[str, torch.Tensor]:
    """Read every tensor of a file, onto the CPU.

    With `mapped` they are windows on the file, which cost memory only where they are touched: to be copied at once and
    dropped, because a change of the file would show in them.

    Raises:
        CheckpointError: there is no such file, or it is damaged.
    """
    with _opened(path) as file:
        windows = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
        return windows if mapped else {name: window.clone() for name, window in windows.items()}


def read_metadata(path: Path) -> dict[str, str]:
    """Return the texts that a file carries beside its tensors."""
    with _opened(path) as file:
        return dict(file.metadata() or {})


def raw_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Return the elements of a tensor as bytes on the CPU, in the order of its indices; shape `(num_bytes,)`."""
    return flat_bytes(tensor.detach().cpu())


def flat_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Return the elements of a tensor as bytes where it is, in the order of its indices; shape `(num_bytes,)`."""
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    # Not every dtype can be viewed as bytes by `view`, but every storage is bytes.
    offset, size = plain.storage_offset() * plain.element_size(), plain.numel() * plain.element_size()
    window = torch.empty(0, dtype=torch.uint8, device=plain.device)
    return window.set_(plain.untyped_storage(), offset, (size,), (1,))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing.") from error
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged and cannot be read: {error}") from error


def _code(name: str, tensor: torch.Tensor) -> str:
    if tensor.layout is not torch.strided or tensor.device.type == "meta":
        kind = "on the meta device" if tensor.device.type == "meta" else f"of layout {tensor.layout}"
        raise CheckpointError(f"The tensor '{name}' is {kind} and cannot be stored. Make it an ordinary dense tensor.")
    if tensor.dtype not in _CODES:
        raise CheckpointError(f"The tensor '{name}' has dtype {tensor.dtype}, which safetensors cannot hold.")
    return _CODES[tensor.dtype]
