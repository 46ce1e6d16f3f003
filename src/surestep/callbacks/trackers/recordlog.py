"""Reading the files in which W&B and SwanLab keep an offline run: the record format of LevelDB's log."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

_HEADER = 7
_BLOCK = 32 * 1024
_WHOLE, _LAST = 1, 4


def record_log(path: Path) -> Iterator[bytes]:
    """Yield the records of a file; what a killed process left unfinished at its end is left out.

    After 7 bytes of the file's own, blocks of 32 KiB hold parts of records, each after a checksum, its length and
    whether it is a whole record, its first, a middle or its last part.
    """
    content = path.read_bytes()
    position, record = _HEADER, b""
    while position + _HEADER <= len(content):
        left = _BLOCK - position % _BLOCK
        _, length, kind = struct.unpack_from("<IHB", content, position)
        if left < _HEADER or kind == 0:
            position += left
            continue
        position += _HEADER
        if position + length > len(content):
            return
        record += content[position : position + length]
        position += length
        if kind in {_WHOLE, _LAST}:
            yield record
            record = b""
