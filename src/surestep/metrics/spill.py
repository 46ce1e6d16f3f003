"""Arrays of an evaluation, kept in memory up to a limit and on disk beyond it.

`Store` owns the limit, which all columns of an evaluation share, and the temporary folder; a `Column` owns the arrays
of one output, batch after batch. What lies on disk is handed out mapped into memory, and its file is gone as soon as
nothing uses the map any more (on Windows when the process ends).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from surestep.errors import DataError
from surestep.metrics.blocks import Blocks

Array = np.ndarray[Any, Any]


class Store:
    """How much of an evaluation is kept in memory, in bytes; None is without limit. Use it as a context.

    The folder is made in the system's place for temporary files (`TMPDIR`) once something must be written.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit, self.held = limit, 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._numbers = count()
        self._files: list[IO[bytes]] = []

    @property
    def full(self) -> bool:
        """Whether what comes is written to disk; once so, always so."""
        return self.limit is not None and self.held > self.limit

    def new_file(self) -> IO[bytes]:
        """Return a new file, open to write and read."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="surestep-evaluation-", ignore_cleanup_errors=True)
        file = (Path(self._folder.name) / f"{next(self._numbers)}.bin").open("w+b")
        self._files.append(file)
        return file

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder; what is mapped stays."""
        for file in self._files:
            file.close()
        self._files.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


class Column:
    """The arrays of one output over the batches, in order."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._forms: list[tuple[tuple[int, ...], np.dtype[Any]]] = []
        self._parts: list[Array] = []
        self._blocks = Blocks()
        self._file: IO[bytes] | None = None

    def append(self, array: Array) -> None:
        """Keep the array of a batch; its bytes have been counted by whoever made it."""
        array = array if array.ndim else array.reshape(1)
        self._forms.append((array.shape, array.dtype))
        full = self._store.full
        self._parts.append(array if full else self._blocks.keep(array))
        # Objects have no bytes of their own to write.
        if full and array.dtype != np.dtype(object):
            self.flush()

    def flush(self) -> None:
        """Write what is in memory to disk."""
        if any(part.dtype == np.dtype(object) for part in self._parts):
            return
        if self._file is None:
            self._file = self._store.new_file()
        for part in self._parts:
            self._file.write(np.ascontiguousarray(part).data)
        self._parts.clear()
        self._blocks = Blocks()

    def joined(self, padding: int, order: Array | None = None) -> Array:
        """Return all arrays as one, rows padded on the right to the longest second dimension.

        `order` names the place of each row. Arrays in memory are given up one by one as they are copied; use the
        column no further.
        """
        shape, dtype = self._form()
        self._blocks = Blocks()
        if len(self._forms) == 1 and order is None and self._file is None:
            return self._parts.pop()
        uniform = all(form == (form[0][:1] + shape[1:], dtype) for form in self._forms)
        if self._file is not None and uniform and order is None:
            return _mapped(self._file, shape, dtype)
        target = _Rows(shape, dtype, padding, None if self._file is None else self._store.new_file())
        start = 0
        for part in self._each():
            places = slice(start, start + len(part)) if order is None else order[start : start + len(part)]
            target.put(part, places)
            start += len(part)
        return target.array()

    def separate(self) -> list[Array]:
        """Return the arrays one by one; use the column no further."""
        if self._file is None:
            return list(self._each())
        size = sum(_bytes(*form) for form in self._forms)
        whole, arrays, start = _mapped(self._file, (size,), np.dtype(np.uint8)), [], 0
        for shape, dtype in self._forms:
            end = start + _bytes(shape, dtype)
            arrays.append(whole[start:end].view(dtype).reshape(shape))
            start = end
        return arrays

    def _form(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return shape and type of the whole."""
        shapes = [shape for shape, _ in self._forms]
        if len({(len(shape), shape[2:]) for shape in shapes}) > 1:
            raise DataError(
                f"The batches of an evaluation have shapes that cannot be joined: {sorted(set(shapes))[:4]}. Only "
                "first and second dimensions may differ; set eval_do_concat_batches=False to keep a list of batches."
            )
        rows, width = sum(shape[0] for shape in shapes), tuple(max(shape[1:2] for shape in shapes))
        return (rows, *width, *shapes[0][2:]), np.result_type(*{dtype for _, dtype in self._forms})

    def _each(self) -> Iterator[Array]:
        """Yield the arrays in order, each once, from memory or from disk."""
        if self._file is None:
            self._parts.reverse()
            while self._parts:
                yield self._parts.pop()
            return
        self._file.seek(0)
        for shape, dtype in self._forms:
            yield np.frombuffer(bytearray(self._file.read(_bytes(shape, dtype))), dtype).reshape(shape)
        _discard(self._file)


class _Rows:
    """An array that is filled row by row, in memory or in a file."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], padding: int, file: IO[bytes] | None) -> None:
        self.shape, self.dtype, self.padding = shape, dtype, padding
        self._file = file
        self._memory = np.empty(shape, dtype) if file is None else None

    def put(self, part: Array, places: slice | Array) -> None:
        """Put rows to their places."""
        if part.shape[1:] != self.shape[1:]:
            padded = np.full((len(part), *self.shape[1:]), self.padding, self.dtype)
            padded[:, : part.shape[1]] = part
            part = padded
        if self._memory is not None:
            self._memory[places] = part
            return
        assert self._file is not None
        part = np.ascontiguousarray(part, self.dtype)
        if isinstance(places, slice):
            self._file.write(part.data)
            return
        for row, place in zip(part, places, strict=True):
            self._file.seek(int(place) * row.nbytes)
            self._file.write(np.ascontiguousarray(row).data)

    def array(self) -> Array:
        """Return the array."""
        if self._memory is not None:
            return self._memory
        assert self._file is not None
        return _mapped(self._file, self.shape, self.dtype)


def _bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


def _mapped(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return a file's array mapped into memory, writable; the file has no name any more."""
    file.flush()
    # An empty file cannot be mapped.
    array: Array = (
        np.memmap(file.name, dtype, mode="r+", shape=shape) if _bytes(shape, dtype) else np.empty(shape, dtype)
    )
    _discard(file)
    return array


def _discard(file: IO[bytes]) -> None:
    file.close()
    with contextlib.suppress(OSError):
        Path(file.name).unlink()
