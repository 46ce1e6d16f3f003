"""What stores tell of a file that was sent, each in its own way, against checksums of its content."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from surestep.checkpoint.arrival import check_arrived
from surestep.runtime.remote_folder import RemoteError

CONTENT = b"what was sent"
MD5 = hashlib.md5(CONTENT, usedforsecurity=False)
ENTRY = {"size": len(CONTENT), "blake2b": hashlib.blake2b(CONTENT, digest_size=32).hexdigest()}


class Told:
    """A remote folder that tells this of a file, and counts how often the file is read back."""

    url = "memory://run"

    def __init__(self, content: bytes = CONTENT, **told: Any) -> None:
        self.content, self.told, self.reads = content, {"size": len(content), **told}, 0

    def info(self, name: str) -> dict[str, Any]:
        return self.told

    def parts(self, name: str, size: int) -> Iterator[bytes]:
        self.reads += 1
        yield self.content


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize(
    ("told", "reads"),
    [
        ({"ETag": f'"{MD5.hexdigest()}"'}, 0),
        ({"etag": MD5.hexdigest().upper()}, 0),
        ({"md5Hash": base64.b64encode(MD5.digest()).decode()}, 0),
        ({"content_md5": bytearray(MD5.digest())}, 0),
        ({}, 1),
        ({"ETag": "no checksum"}, 1),
        ({"ETag": f"{MD5.hexdigest()}-9"}, 1),
        ({"ETag": hashlib.md5(b"other", usedforsecurity=False).hexdigest()}, 1),
    ],
)
def test_a_checksum_that_agrees_spares_reading_back(source: Path, told: dict[str, Any], reads: int) -> None:
    there: Any = Told(**told)
    check_arrived(source, there, "a.bin", ENTRY)
    assert there.reads == reads


@pytest.mark.parametrize(
    ("content", "message"),
    [(CONTENT[:-1], "has 12 bytes instead of 13"), (CONTENT[:-1] + b"?", "is not what was sent")],
)
def test_another_file_is_an_error(source: Path, content: bytes, message: str) -> None:
    there: Any = Told(content)
    with pytest.raises(RemoteError, match=message):
        check_arrived(source, there, "a.bin", ENTRY)
