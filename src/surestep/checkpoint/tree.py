"""Trees of state on disk: `<name>.json`, and `<name>.safetensors` where there are tensors. What others pickle."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, NoReturn

from surestep.checkpoint.codec import decode, encode
from surestep.checkpoint.files import remove
from surestep.checkpoint.tensors import read_tensors, write_tensors
from surestep.errors import CheckpointError
from surestep.runtime.disk import make_folders, write_text

_FORMAT = "surestep.tree"
_VERSION = 1
# What a document that does not fit raises while it is decoded.
_MISFITS = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError, struct.error)


def write_tree(folder: Path, name: str, tree: object) -> list[Path]:
    """Write `tree` into `folder` and return the files written.

    A tree is any nesting of dicts (with keys of any storable kind), lists, tuples, sets, deques, counters, ints,
    floats, complex numbers, booleans, None, texts, bytes, dense tensors of any dtype and strides, NumPy arrays and
    scalars, dtypes and sizes. It comes back equal to the last bit, with the same types; tensors come back on the CPU,
    and those that shared memory share it again. Subclasses (an enum's member, a named tuple) are refused, not
    flattened.

    Raises:
        CheckpointError: a value of another kind; the message names its place and type. Nothing has been written then.
        OSError: the disk is full, or cannot be written to.
    """
    document, tensors = encode(tree, name)
    text = json.dumps({"format": _FORMAT, "version": _VERSION, "tree": document}, allow_nan=False)
    text_path, tensor_path = _paths(folder, name)
    make_folders(folder)
    if tensors:
        write_tensors(tensor_path, tensors)
    else:
        remove(tensor_path)
    write_text(text_path, text)
    return [text_path, tensor_path] if tensors else [text_path]


def read_tree(folder: Path, name: str, *, mapped: bool = False) -> Any:
    """Return the tree that `write_tree` wrote under `name`; `mapped` as in `tensors.read_tensors`.

    Raises:
        CheckpointError: a file is missing, damaged, or not one of these trees; the message names the file.
    """
    text_path, tensor_path = _paths(folder, name)
    document = _document(text_path)
    tensors = read_tensors(tensor_path, mapped=mapped) if tensor_path.exists() else {}
    try:
        return decode(document, tensors)
    except KeyError as error:
        source = tensor_path if tensor_path.exists() else text_path
        raise CheckpointError(f"{source} is damaged: it lacks {error}, which {text_path.name} refers to.") from error
    except _MISFITS as error:
        raise CheckpointError(f"{text_path} is damaged: {type(error).__name__}: {error}") from error


def trees_in(folder: Path) -> list[str]:
    """Return the names of the trees in `folder`, sorted."""
    start = json.dumps({"format": _FORMAT})[:-1].encode()

    def is_tree(path: Path) -> bool:
        with path.open("rb") as file:
            return file.read(len(start)) == start

    return sorted(path.stem for path in folder.glob("*.json") if path.is_file() and is_tree(path))


def tree_exists(folder: Path, name: str) -> bool:
    """Say whether `folder` has a tree of that name."""
    return _paths(folder, name)[0].is_file()


def check_tree(tree: object, name: str) -> None:
    """Raise what `write_tree` would raise about the values of `tree`; write nothing."""
    encode(tree, name)


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.json", folder / f"{name}.safetensors"


def _document(path: Path) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged and cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise CheckpointError(f"{path} does not hold state in the form that this library writes.")
    if content.get("version") != _VERSION:
        raise CheckpointError(
            f"{path} is of version {content.get('version')!r}, and this library reads version {_VERSION}. Load it with "
            "the version of the library that wrote it."
        )
    return content.get("tree")


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")
