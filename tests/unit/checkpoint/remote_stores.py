"""Remote stores to test with: one in memory that fails, or in which the process dies, at an operation of choice."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from surestep.checkpoint.remote import DamagedError, RemoteStore
from surestep.runtime.remote_folder import RemoteFolder


class Dead(BaseException):
    """Stands for the death of the process: whatever it tries afterwards does not happen."""


@dataclass
class Plan:
    """What is to happen: at operation `at`, death, or an error; `lasting` breaks every later one as well."""

    at: int | None = None
    dies: bool = False
    lasting: bool = False
    # Of what is put at that operation, so much is there: stores are no files, but some are folders elsewhere.
    torn: bool = False


class Faulty(MemoryFileSystem):
    """A store in memory of its own, whose operations are counted."""

    protocol = "faulty"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    plan: ClassVar[Plan] = Plan()
    operations: ClassVar[list[str]] = []
    dead: ClassVar[bool] = False
    # The checksums that the store tells, by path; those of objects of an encrypted bucket are of something else.
    tags: ClassVar[dict[str, str]] = {}

    @classmethod
    def reset(cls, plan: Plan | None = None, *, keep: bool = False) -> None:
        if not keep:
            cls.store.clear()
            cls.tags.clear()
            cls.pseudo_dirs[:] = [""]
        cls.plan, cls.dead = plan or Plan(), False
        cls.operations.clear()

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return super()._strip_protocol(str(path).removeprefix("faulty://"))

    def _do(self, name: str, path: str) -> None:
        if Faulty.dead:
            raise Dead
        number, plan = len(self.operations), self.plan
        self.operations.append(f"{name} {path}")
        if plan.at is None or not (number == plan.at or (plan.lasting and number > plan.at)):
            return
        if plan.dies:
            Faulty.dead = True
            raise Dead
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def _put(self, name: str, path: str, content: bytes) -> None:
        try:
            self._do(name, path)
        except BaseException:
            if self.plan.torn and len(self.operations) == (self.plan.at or 0) + 1:
                super().pipe_file(path, content[: len(content) // 2])
            raise
        super().pipe_file(path, content)

    def put_file(self, lpath: str, rpath: str, **kwargs: Any) -> None:
        self._put("put", rpath, Path(lpath).read_bytes())

    def pipe_file(self, path: str, value: bytes, **kwargs: Any) -> None:
        self._put("pipe", path, value)

    def rm_file(self, path: str) -> None:
        self._do("remove", path)
        super().rm_file(path)

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        self._do("read", path)
        return super().cat_file(path, *args, **kwargs)

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        self._do("info", path)
        tag = self.tags.get(path.rpartition("/")[2])
        return {**super().info(path), **({"ETag": tag} if tag else {})}

    def rmdir(self, path: str) -> None:
        self._do("rmdir", path)
        super().rmdir(path)

    def find(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self._do("find", path)
        return super().find(path, *args, **kwargs)

    def ls(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self._do("list", path)
        return super().ls(path, *args, **kwargs)


fsspec.register_implementation("faulty", Faulty, clobber=True)
URL = "faulty://bucket/run"


def remote(url: str = URL) -> RemoteStore:
    return RemoteStore(RemoteFolder(url, "save_remote"))


def whole(store: RemoteStore) -> list[str]:
    """Return the checkpoints that a run could go on from: complete, and every byte as it was written."""
    found = []
    for name in store.names():
        try:
            store.listing(name)
        except DamagedError:
            continue
        assert store.verify(name, lambda _: None).problems == [], name
        found.append(name)
    return found
