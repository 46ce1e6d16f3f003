"""Whether a file that was put into a remote store is there as it was sent.

Its size always tells a part. Most object stores tell a checksum as well, of which only agreement says anything: with
encryption and other settings of a bucket it is of something else. Where it does not agree the file is read back.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from surestep.checkpoint.files import blake2b
from surestep.runtime.disk import disk
from surestep.runtime.remote_folder import RemoteError, RemoteFolder

_MEBIBYTE = 2**20
_CHUNK = _MEBIBYTE
_MD5_LENGTH = 32
# In how large parts clients send large files, in MiB; a store then tells the checksum of the parts' checksums.
_PARTS = (50, 8, 5, 16, 10, 32, 64, 100, 128)


def check_arrived(source: Path, there: RemoteFolder, name: str, entry: Mapping[str, Any]) -> None:
    """Raise where a file that was put is not what the manifest's `entry` says, here or there.

    Raises:
        RemoteError: the file there is another one.
        OSError: the file here is another one, or cannot be read.
    """
    told = there.info(name)
    if told.get("size") != entry["size"]:
        raise RemoteError(f"'{there.url}/{name}' has {told.get('size')} bytes instead of {entry['size']}")
    claim = _claim(told)
    if claim is not None and _agrees(source, claim, entry):
        return
    if digest_there(there, name, entry["size"]) != entry["blake2b"]:
        raise RemoteError(f"'{there.url}/{name}' is not what was sent: its checksum differs")


def digest_there(there: RemoteFolder, name: str, size: int) -> str:
    """Return the BLAKE2b checksum of a file of a remote folder, which is read and not kept."""
    digest = blake2b()
    for part in there.parts(name, size):
        digest.update(part)
    return digest.hexdigest()


def _claim(told: Mapping[str, Any]) -> str | None:
    """Return the MD5 checksum that a store tells, `<hex>` or `<hex>-<number of parts>`; None where it tells none."""
    if isinstance(told.get("md5Hash"), str):
        return base64.b64decode(told["md5Hash"]).hex()
    given = next((told[name] for name in ("ETag", "etag", "content_md5") if told.get(name)), None)
    if isinstance(given, bytes | bytearray):
        return bytes(given).hex()
    return given.strip('"').lower() if isinstance(given, str) else None


def _agrees(source: Path, claim: str, entry: Mapping[str, Any]) -> bool:
    """Say whether a claim is that of a file here, and the file here still what the manifest says."""
    whole, _, count = claim.partition("-")
    size = entry["size"]
    if not count:
        parts = [max(size, 1)]
    else:
        parts = [one * _MEBIBYTE for one in _PARTS if str(-(-size // (one * _MEBIBYTE))) == count]
    if not parts or len(whole) != _MD5_LENGTH:
        return False
    own = blake2b()
    sums = {part: _Sums(part) for part in parts}
    for chunk in _chunks(source):
        own.update(chunk)
        for one in sums.values():
            one.update(chunk)
    if own.hexdigest() != entry["blake2b"]:
        raise OSError(f"'{source}' is not as it was written any more: its checksum differs")
    return whole in {one.of_parts() if count else one.of_whole() for one in sums.values()}


class _Sums:
    """The MD5 checksums of the parts of a file, each of so many bytes, a multiple of a chunk (or all of them)."""

    def __init__(self, part: int) -> None:
        self._part, self._filled = part, 0
        self._open = hashlib.md5(usedforsecurity=False)
        self._done: list[bytes] = []

    def update(self, chunk: bytes) -> None:
        self._open.update(chunk)
        self._filled += len(chunk)
        if self._filled == self._part:
            self._done.append(self._open.digest())
            self._open, self._filled = hashlib.md5(usedforsecurity=False), 0

    def of_parts(self) -> str:
        last = [self._open.digest()] if self._filled else []
        return hashlib.md5(b"".join([*self._done, *last]), usedforsecurity=False).hexdigest()

    def of_whole(self) -> str:
        return (self._done[0] if self._done else self._open.digest()).hex()


def _chunks(source: Path) -> Iterator[bytes]:
    with disk().read(source) as file:
        while chunk := file.read(_CHUNK):
            yield chunk
