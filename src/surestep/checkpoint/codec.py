"""Turn nested state into JSON and named tensors, and back, to the last bit. Data only: nothing here can name code.

JSON alone says what it can: dicts with string keys, lists, strings, ordinary numbers, booleans, null. Everything else
is an object with the key `$`, which names its kind.
"""

from __future__ import annotations

import base64
import math
import struct
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal

import numpy as np
import torch

from surestep.checkpoint.sharing import extent, overlapping, same_view
from surestep.checkpoint.tensors import native, raw_bytes
from surestep.errors import CheckpointError

Json = Any
_KIND: Final = "$"
# Python refuses to print or parse longer decimal numbers; beyond this, hexadecimal ones are written.
_DECIMAL_BITS = 64
# NumPy kinds whose items are plain bytes: booleans, numbers, texts, times.
_NUMPY_KINDS = "biufcSUMm"
_PARAMETERS = {torch.Tensor: False, torch.nn.Parameter: True}
# Restored views of bytes start at a multiple of the widest element.
_WIDEST = 16


def encode(tree: object, name: str) -> tuple[Json, dict[str, torch.Tensor]]:
    """Return `tree` as JSON data and the tensors that it refers to; `name` starts the paths in messages.

    Tensors are neither copied nor moved. Those that share memory are stored once and share it again when decoded.

    Raises:
        CheckpointError: a value of a kind that cannot be stored, or a container within itself.
    """
    return _Encoder().run(tree, name)


def decode(document: Json, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Return the tree that `encode` took; what does not fit raises one of Python's own lookup or value errors."""
    if isinstance(document, list):
        return [decode(item, tensors) for item in document]
    if not isinstance(document, dict):
        return document
    if _KIND not in document:
        return {key: decode(value, tensors) for key, value in document.items()}
    kind = document[_KIND]
    if kind in _CONTAINER_DECODERS:
        return _CONTAINER_DECODERS[kind](document, [decode(item, tensors) for item in document["items"]])
    if kind in _LEAF_DECODERS:
        return _LEAF_DECODERS[kind](document["value"])
    return _TENSOR_DECODERS[kind](document, tensors)


class _Encoder:
    """One walk over a tree: the tensors met so far, and the containers that are open."""

    def __init__(self) -> None:
        self._tensors: dict[str, torch.Tensor] = {}
        self._nodes: dict[str, dict[str, Json]] = {}
        self._open: set[int] = set()
        # The safetensors format keeps this name for itself.
        self._taken = {"__metadata__"}

    def run(self, tree: object, name: str) -> tuple[Json, dict[str, torch.Tensor]]:
        try:
            document = self._encode(tree, name)
        except RecursionError as error:
            raise CheckpointError(f"{name} is nested too deeply to be stored.") from error
        return document, self._store()

    def _encode(self, value: object, path: str) -> Json:
        kind = type(value)
        if kind in _PLAIN or value is None:
            return value
        if kind in _LEAF_ENCODERS:
            return _LEAF_ENCODERS[kind](value)
        if isinstance(value, np.generic) and value.dtype.kind in _NUMPY_KINDS:
            return _node("numpy_scalar", [value.dtype.str, value.tobytes().hex()])
        if isinstance(value, torch.Tensor) and kind in _PARAMETERS:
            return self._tensor(value, path)
        if isinstance(value, np.ndarray) and kind is np.ndarray and value.dtype.kind in _NUMPY_KINDS:
            return self._array(value, path)
        if kind in _CONTAINER_ENCODERS:
            with self._within(value, path):
                return _CONTAINER_ENCODERS[kind](self, value, path)
        raise CheckpointError(
            f"{path} is a value of type {kind.__module__}.{kind.__qualname__}, which a checkpoint cannot hold. Keep "
            "numbers, texts, lists, tuples, dicts, sets, tensors or NumPy arrays there; build the rest when loading."
        )

    @contextmanager
    def _within(self, container: object, path: str) -> Iterator[None]:
        if id(container) in self._open:
            raise CheckpointError(f"{path} contains itself, so that it has no end to store.")
        self._open.add(id(container))
        yield
        self._open.remove(id(container))

    def items(self, values: Iterable[object], path: str) -> list[Json]:
        return [self._encode(item, f"{path}/{index}") for index, item in enumerate(values)]

    def mapping(self, value: Mapping[Any, object], path: str) -> Json:
        if all(type(key) is str and key != _KIND and _encodable(key) for key in value):
            return {key: self._encode(item, f"{path}/{key}") for key, item in value.items()}
        return {_KIND: "dict", "items": self.pairs(value, path)}

    def pairs(self, value: Mapping[Any, object], path: str) -> list[Json]:
        return [
            [self._encode(key, f"{path}/key {key!r:.80}"), self._encode(item, f"{path}/{key!s:.80}")]
            for key, item in value.items()
        ]

    def unordered(self, values: Iterable[object], path: str) -> list[Json]:
        return sorted(self.items(values, path), key=repr)

    def _key(self, path: str) -> str:
        """Return the name of a tensor in the file: its path without the tree's name, made unique."""
        stem = path.partition("/")[2].encode("ascii", "backslashreplace").decode() or "value"
        key, count = stem, 1
        while key in self._taken:
            count += 1
            key = f"{stem}#{count}"
        self._taken.add(key)
        return key

    def _array(self, value: np.ndarray[Any, Any], path: str) -> Json:
        order: Literal["C", "F"] = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
        key = self._key(path)
        data = bytearray(value.tobytes(order))
        self._tensors[key] = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
        return {_KIND: "array", "key": key, "dtype": value.dtype.str, "shape": list(value.shape), "order": order}

    def _tensor(self, value: torch.Tensor, path: str) -> Json:
        if value.layout is not torch.strided or value.is_quantized or value.device.type == "meta":
            raise CheckpointError(
                f"{path} is a tensor of layout {value.layout} and dtype {value.dtype} on {value.device}, which a "
                "checkpoint cannot hold. Keep a dense tensor there."
            )
        node: dict[str, Json] = {_KIND: "tensor", "key": self._key(path)}
        if value.requires_grad:
            node["requires_grad"] = True
        if _PARAMETERS[type(value)]:
            node["parameter"] = True
        self._tensors[node["key"]] = value.detach()
        self._nodes[node["key"]] = node
        return node

    def _store(self) -> dict[str, torch.Tensor]:
        """Lay out the tensors found: each memory once."""
        stored = {key: tensor for key, tensor in self._tensors.items() if key not in self._nodes}
        for keys in overlapping({key: self._tensors[key] for key in self._nodes}):
            first = self._tensors[keys[0]]
            if all(same_view(first, self._tensors[key]) for key in keys):
                stored[keys[0]] = self._alone(keys)
            else:
                stored[keys[0]] = self._shared(keys)
        return stored

    def _alone(self, keys: list[str]) -> torch.Tensor:
        """Store one view, met once or several times; keep the order of its dimensions in memory."""
        tensor = self._tensors[keys[0]]
        notes: dict[str, Json] = {"key": keys[0]}
        strides = tensor.stride()
        order = sorted(range(tensor.dim()), key=lambda dim: -strides[dim])
        if not tensor.is_contiguous() and tensor.permute(order).is_contiguous():
            tensor = tensor.permute(order)
            notes["order"] = order
        if not native(tensor.dtype):
            notes |= {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
            tensor = raw_bytes(tensor)
        for key in keys:
            self._nodes[key] |= notes
        return tensor

    def _shared(self, keys: list[str]) -> torch.Tensor:
        """Store the bytes that several different views reach, and how each view lies in them."""
        views = [self._tensors[key] for key in keys]
        start = min(extent(view)[0] for view in views) // _WIDEST * _WIDEST
        end = max(extent(view)[1] for view in views)
        for key, view in zip(keys, views, strict=True):
            self._nodes[key] |= {
                _KIND: "view",
                "key": keys[0],
                "dtype": str(view.dtype).removeprefix("torch."),
                "shape": list(view.shape),
                "stride": list(view.stride()),
                "offset": view.storage_offset() - start // view.element_size(),
                "conj": view.is_conj(),
                "neg": view.is_neg(),
            }
        storage = views[0].untyped_storage()
        window = torch.empty(0, dtype=torch.uint8, device=views[0].device).set_(storage, start, (end - start,), (1,))
        return torch.nn.functional.pad(window, (0, -(end - start) % _WIDEST))


def _node(kind: str, value: Json) -> dict[str, Json]:
    return {_KIND: kind, "value": value}


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _encode_int(value: int) -> Json:
    return value if value.bit_length() <= _DECIMAL_BITS else _node("int", hex(value))


def _encode_float(value: float) -> Json:
    return value if math.isfinite(value) else _node("float", struct.pack(">d", value).hex())


def _decode_float(text: str) -> float:
    return float(struct.unpack(">d", bytes.fromhex(text))[0])


def _encode_text(value: str) -> Json:
    return (
        value if _encodable(value) else _node("text", base64.b64encode(value.encode("utf-8", "surrogatepass")).decode())
    )


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"torch.{name} is no dtype")
    return dtype


def _numpy_dtype(text: str) -> np.dtype[Any]:
    dtype = np.dtype(text)
    if dtype.kind not in _NUMPY_KINDS:
        raise TypeError(f"{text} is no dtype of plain items")
    return dtype


def _decode_array(document: dict[str, Json], tensors: Mapping[str, torch.Tensor]) -> np.ndarray[Any, Any]:
    dtype = _numpy_dtype(document["dtype"])
    data = tensors[document["key"]].numpy().tobytes()
    flat = np.frombuffer(data, dtype) if data else np.empty(0, dtype)
    return flat.reshape(document["shape"], order=document["order"]).copy(order="K")


def _decode_tensor(document: dict[str, Json], tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    tensor = tensors[document["key"]]
    if "dtype" in document:
        tensor = tensor.view(_dtype(document["dtype"])).reshape(document["shape"])
    if "order" in document:
        order = document["order"]
        tensor = tensor.permute(sorted(range(len(order)), key=order.__getitem__))
    return _flagged(document, tensor)


def _decode_view(document: dict[str, Json], tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    memory = tensors[document["key"]].view(_dtype(document["dtype"]))
    tensor = memory.as_strided(document["shape"], document["stride"], document["offset"])
    tensor = torch.conj(tensor) if document["conj"] else tensor
    return _flagged(document, torch._neg_view(tensor) if document["neg"] else tensor)


def _flagged(document: dict[str, Json], tensor: torch.Tensor) -> torch.Tensor:
    requires_grad = bool(document.get("requires_grad"))
    if document.get("parameter"):
        return torch.nn.Parameter(tensor, requires_grad)
    return tensor.detach().requires_grad_(requires_grad)


_PLAIN = frozenset({bool})
_LEAF_ENCODERS: dict[type, Callable[[Any], Json]] = {
    int: _encode_int,
    float: _encode_float,
    complex: lambda value: _node("complex", struct.pack(">dd", value.real, value.imag).hex()),
    str: _encode_text,
    bytes: lambda value: _node("bytes", base64.b64encode(value).decode()),
    torch.dtype: lambda value: _node("dtype", str(value).removeprefix("torch.")),
    torch.Size: lambda value: _node("size", list(value)),
}
_LEAF_DECODERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda value: int(value, 16),
    "float": _decode_float,
    "complex": lambda value: complex(*struct.unpack(">dd", bytes.fromhex(value))),
    "text": lambda value: base64.b64decode(value, validate=True).decode("utf-8", "surrogatepass"),
    "bytes": lambda value: base64.b64decode(value, validate=True),
    "dtype": _dtype,
    "size": torch.Size,
    "numpy_scalar": lambda value: np.frombuffer(bytes.fromhex(value[1]), _numpy_dtype(value[0]))[0],
}
_CONTAINER_ENCODERS: dict[type, Callable[[_Encoder, Any, str], Json]] = {
    dict: _Encoder.mapping,
    list: _Encoder.items,
    tuple: lambda encoder, value, path: {_KIND: "tuple", "items": encoder.items(value, path)},
    set: lambda encoder, value, path: {_KIND: "set", "items": encoder.unordered(value, path)},
    frozenset: lambda encoder, value, path: {_KIND: "frozenset", "items": encoder.unordered(value, path)},
    Counter: lambda encoder, value, path: {_KIND: "counter", "items": encoder.pairs(value, path)},
    OrderedDict: lambda encoder, value, path: {_KIND: "ordered_dict", "items": encoder.pairs(value, path)},
    deque: lambda encoder, value, path: {_KIND: "deque", "items": encoder.items(value, path), "maxlen": value.maxlen},
}
_CONTAINER_DECODERS: dict[str, Callable[[dict[str, Json], list[Any]], Any]] = {
    "dict": lambda _, items: dict(items),
    "tuple": lambda _, items: tuple(items),
    "set": lambda _, items: set(items),
    "frozenset": lambda _, items: frozenset(items),
    "counter": lambda _, items: Counter(dict(items)),
    "ordered_dict": lambda _, items: OrderedDict(items),
    "deque": lambda document, items: deque(items, document["maxlen"]),
}
_TENSOR_DECODERS: dict[str, Callable[[dict[str, Json], Mapping[str, torch.Tensor]], Any]] = {
    "tensor": _decode_tensor,
    "view": _decode_view,
    "array": _decode_array,
}
