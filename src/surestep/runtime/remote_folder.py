"""What is done with remote files when checkpoints are sent and fetched: the one seam between this library and fsspec.

A `RemoteFolder` owns nothing but its place: what lies there belongs to whoever put it. Nothing is asked of a store but
that one file can be put, read in parts, listed and removed: no rename, no append, no folders of its own. Whatever its
client raises is a `RemoteError` here, for each has errors of its own kind, but for a file that is not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from surestep.errors import ArgumentError, MissingPackageError, SurestepError
from surestep.optional import require

# Stores that have no folders: to make one there may make a bucket.
_BUCKETS = {"s3", "s3a", "gs", "gcs", "abfs", "az", "adl", "oss", "oci", "tos", "memory", "hf"}
_PASSWORD = re.compile(r"(?<=://)[^/@:]*:[^/@]*@")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|\w+::")
# How much is read at a time, and in how many parts at once where the client can.
_PART, _AT_ONCE = 16 * 2**20, 4
T = TypeVar("T")


class RemoteError(SurestepError, OSError):
    """What a remote store, or the way to it, did not do."""

    def __str__(self) -> str:
        # Whoever writes what it could not read adds a name of its own.
        return str(self.args[0])


def is_url(text: object) -> bool:
    """Say whether something names a remote folder, such as "s3://bucket/run", and no path of this machine."""
    return isinstance(text, str) and _SCHEME.match(text) is not None


def without_password(text: str) -> str:
    """Return a text with what is secret in its URLs masked."""
    return _PASSWORD.sub("***@", text)


class RemoteFolder:
    """A folder of a remote store, by its URL; `purpose` says in errors what it is for, such as a setting.

    Raises:
        MissingPackageError: fsspec or the package of the protocol is not installed; the message names it.
        ArgumentError: nobody knows the protocol, or the URL has a password in it.
    """

    def __init__(self, url: str, purpose: str) -> None:
        if _PASSWORD.search(url):
            raise ArgumentError(
                f"{purpose} '{without_password(url)}' has a password in it, which would get into logs. Leave it out "
                "and give it to the client: its environment variables, its file of credentials, or fsspec's."
            )
        self.url = url.rstrip("/")
        self._files, self._root = _open(self.url, purpose)

    @property
    def name(self) -> str:
        """The last part of its URL."""
        return self.url.rpartition("/")[2]

    def within(self, name: str) -> RemoteFolder:
        """Return the folder of this name in it."""
        inner = object.__new__(RemoteFolder)
        inner.url, inner._files, inner._root = f"{self.url}/{name}", self._files, f"{self._root}/{name}"
        return inner

    @property
    def parent(self) -> RemoteFolder:
        """Return the folder that it is in."""
        outer = object.__new__(RemoteFolder)
        outer.url, outer._files = self.url.rpartition("/")[0], self._files
        outer._root = self._root.rpartition("/")[0]
        return outer

    def folders(self) -> list[str]:
        """Return the names of the folders in it, sorted; none where it is not there itself."""
        return sorted(_last(entry["name"]) for entry in self._list() if entry["type"] == "directory")

    def sizes(self) -> dict[str, int]:
        """Return the bytes of every file below it, by its name from here; none where it is not there."""
        try:
            self._files.invalidate_cache()
            found = self._files.find(self._root, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            self._raise(error)
        cut = len(self._root.rstrip("/")) + 1
        return {path[cut:]: int(entry.get("size") or 0) for path, entry in found.items() if path[cut:]}

    def info(self, name: str) -> dict[str, Any]:
        """Return what the store tells of a file: its `size`, and more by the store's own names."""
        try:
            self._files.invalidate_cache()
            return dict(self._files.info(self._path(name)))
        except Exception as error:
            self._raise(error, name)

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """Return a file, or the bytes from `start` to before `end`.

        Raises:
            FileNotFoundError: it is not there.
        """
        try:
            return bytes(self._files.cat_file(self._path(name), start=start, end=end))
        except FileNotFoundError:
            raise
        except Exception as error:
            self._raise(error, name)

    def read_each(self, names: list[str]) -> list[bytes | None]:
        """Return small files, at once where the client can; None for one that is not there."""
        try:
            paths = [self._path(name) for name in names]
            found = self._files.cat_ranges(paths, 0, None, on_error="return") if paths else []
        except Exception as error:
            self._raise(error)
        for name, content in zip(names, found, strict=True):
            if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                self._raise(content, name)
        return [None if isinstance(content, Exception) else bytes(content) for content in found]

    def parts(self, name: str, size: int) -> Iterator[bytes]:
        """Yield a file of `size` bytes, part after part."""
        path, step = self._path(name), _PART * _AT_ONCE
        for begin in range(0, size, step):
            starts = list(range(begin, min(begin + step, size), _PART))
            ends = [min(start + _PART, size) for start in starts]
            try:
                yield from self._files.cat_ranges([path] * len(starts), starts, ends, on_error="raise")
            except Exception as error:
                self._raise(error, name)

    def write(self, name: str, content: bytes) -> None:
        """Put a small file, in the place of an older one."""
        self._put(name, lambda path: self._files.pipe_file(path, content))

    def put(self, source: Path, name: str) -> None:
        """Put a file of this machine, in the place of an older one."""
        self._put(name, lambda path: self._files.put_file(str(source), path))

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is removed already."""
        try:
            self._files.rm_file(self._path(name))
        except FileNotFoundError:
            return
        except Exception as error:
            self._raise(error, name)

    def remove_empty(self) -> None:
        """Remove the folder itself, which has no files any more, where the store has folders."""
        if not self._has_folders():
            return
        try:
            for path in sorted(self._files.find(self._root, withdirs=True), key=len, reverse=True):
                self._files.rmdir(path)
        except FileNotFoundError:
            return
        except Exception as error:
            self._raise(error)

    def _put(self, name: str, put: Any) -> None:
        path = self._path(name)
        try:
            if self._has_folders():
                self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            put(path)
        except Exception as error:
            self._raise(error, name)

    def _list(self) -> list[dict[str, Any]]:
        try:
            self._files.invalidate_cache()
            return list(self._files.ls(self._root, detail=True))
        except FileNotFoundError:
            return []
        except Exception as error:
            self._raise(error)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _has_folders(self) -> bool:
        protocols = self._files.protocol
        return not {protocols} & _BUCKETS if isinstance(protocols, str) else not {*protocols} & _BUCKETS

    def _raise(self, error: Exception, name: str = "") -> NoReturn:
        place = f"{self.url}/{name}" if name else self.url
        text = without_password(" ".join(f"{error}".split()))
        raise RemoteError(f"'{place}': {type(error).__name__}: {text}") from error


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _open(url: str, purpose: str) -> tuple[Any, str]:
    fsspec = require("fsspec", f"{purpose} '{url}'")
    known = require("fsspec.registry", purpose).known_implementations
    for link in url.split("::"):
        home = known.get(link.partition("://")[0], {}).get("class", "fsspec").partition(".")[0]
        if home != "fsspec":
            require(home, f"{purpose} '{url}'")
    try:
        files, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingPackageError(f"{purpose} '{url}' needs a package that is not installed: {error}") from error
    except ValueError as error:
        raise ArgumentError(
            f"{purpose} '{url}' cannot be opened: {error}. Write the URL of a folder that fsspec knows, such as "
            "'s3://bucket/run' or 'gs://bucket/run'."
        ) from error
    return files, str(root).rstrip("/")
