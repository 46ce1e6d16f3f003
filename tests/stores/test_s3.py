"""A store that speaks S3 (moto's server), through s3fs: requests over HTTP, uploads in parts, checksums of its own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from surestep.checkpoint.layout import MANIFEST
from surestep.checkpoint.remote import RemoteStore
from surestep.checkpoint.tree import write_tree
from surestep.errors import CheckpointError, SaveError
from surestep.runtime.remote_folder import RemoteError, RemoteFolder
from tests.small import quick
from tests.unit.checkpoint.remote_stores import whole
from tests.unit.checkpoint.stores import make_store

_MISSING = [name for name in ("moto", "s3fs", "boto3") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(_MISSING), reason=f"make test-stores installs {', '.join(_MISSING)}"),
    # Of the clients, on their own account.
    pytest.mark.filterwarnings("ignore"),
]
SAVES = {"save_strategy": "steps", "save_steps": 1, "logging_steps": 1, "max_steps": 5}


class Store:
    """The server, which may be stopped and started again on the same port; what it holds goes with it."""

    def __init__(self) -> None:
        self.port = 0
        self.start()
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
        }

    def start(self) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        self._server.stop()

    def make_bucket(self, name: str) -> str:
        import boto3

        boto3.client("s3").create_bucket(Bucket=name)
        return f"s3://{name}/runs/one"


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    before = dict(os.environ)
    store = Store()
    yield store
    store.stop()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def url(server: Store, request: pytest.FixtureRequest) -> str:
    return server.make_bucket(f"bucket-{abs(hash(request.node.name)) % 10**9}")


def test_a_run_goes_on_from_the_bucket_alone(url: str, tmp_path: Path) -> None:
    alone = quick(tmp_path / "alone", **SAVES, seed=3)
    alone.train()
    first = quick(tmp_path / "first", **SAVES, save_remote=url, save_total_limit=2, seed=3)
    with first.steps() as steps:
        for state in steps:
            if state.global_step == 3:
                break
    store = RemoteStore(RemoteFolder(url, "save_remote"))
    assert whole(store) == ["checkpoint-2", "checkpoint-3"]
    shutil.rmtree(tmp_path / "first")

    second = quick(tmp_path / "second", **SAVES, save_remote=url, save_total_limit=2, save_async=True, seed=3)
    second.train(resume_from_checkpoint="auto")

    assert second.resume_report is not None
    assert second.resume_report.step == 3
    assert torch.equal(second.model.layer.weight, alone.model.layer.weight)
    assert whole(store) == ["checkpoint-4", "checkpoint-5"]
    assert store.names() == ["checkpoint-4", "checkpoint-5"]


def test_its_checksums_are_understood(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local, store = make_store(tmp_path), RemoteStore(RemoteFolder(url, "save_remote"))
    with local.staging(1) as stage:
        (stage.folder / "large.bin").write_bytes(os.urandom(101 * 2**20 + 5))
        write_tree(stage.folder, "optimizer", {"w": torch.ones(50)})
    read: list[str] = []
    parts = RemoteFolder.parts

    def notes(self: RemoteFolder, name: str, size: int) -> Iterator[bytes]:
        read.append(name)
        return parts(self, name, size)

    monkeypatch.setattr(RemoteFolder, "parts", notes)
    began = time.monotonic()
    store.send(tmp_path / "checkpoint-1")
    # One is in parts, whose checksum is of their checksums; nothing had to be read back.
    assert "-" in store.folder.info("checkpoint-1/large.bin")["ETag"]
    assert read == []
    sent = time.monotonic()
    store.fetch("checkpoint-1", store.listing("checkpoint-1"), tmp_path / "back", lambda _: None)
    assert (tmp_path / "back" / "large.bin").read_bytes() == (tmp_path / "checkpoint-1" / "large.bin").read_bytes()
    print(f"\n101 MiB: sent and checked in {sent - began:.1f} s, fetched in {time.monotonic() - sent:.1f} s")
    local.release()


def test_what_is_cut_short_or_changed_there_is_passed_over(url: str, tmp_path: Path) -> None:
    quick(tmp_path / "first", **SAVES, save_remote=url).train()
    folder = RemoteFolder(url, "save_remote")
    folder.remove(f"checkpoint-5/{MANIFEST}")
    content = folder.read("checkpoint-4/model.safetensors")
    folder.write("checkpoint-4/model.safetensors", content[:-1] + bytes([content[-1] ^ 1]))
    second = quick(tmp_path / "second", **SAVES, save_remote=url)
    second.train(resume_from_checkpoint="auto")
    assert second.resume_report is not None
    assert second.resume_report.step == 3


def test_a_bucket_that_is_not_there_is_not_made(server: Store, tmp_path: Path) -> None:
    with pytest.raises(SaveError, match=r"No checkpoint can be sent to save_remote: .*bucket does not exist"):
        quick(tmp_path, **SAVES, save_remote="s3://nobodys-bucket/run").train()
    import boto3

    assert "nobodys-bucket" not in [one["Name"] for one in boto3.client("s3").list_buckets()["Buckets"]]


def test_a_store_that_is_away_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    settings: dict[str, Any] = {"endpoint_url": "http://127.0.0.1:9", "config_kwargs": {"retries": {"max_attempts": 0}}}
    monkeypatch.setitem(fsspec.config.conf, "s3", settings)
    with pytest.raises(CheckpointError, match=r"The remote checkpoints cannot be read: .*EndpointConnectionError"):
        quick(tmp_path, **SAVES, save_remote="s3://bucket/run").train(resume_from_checkpoint="auto")
    with pytest.raises(RemoteError):
        RemoteStore(RemoteFolder("s3://bucket/run", "save_remote")).names()
