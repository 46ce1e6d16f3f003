"""The record of a run in its output folder: written in one stroke, and read by those who can."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from surestep.checkpoint.run_record import RUN_RECORD, RunRecord, read_record

RECORD = RunRecord("3f9c51d2a07e", "2026-03-02T04:11:09+00:00", {"training_loss": 0.5, "early": False})


def test_it_comes_back(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    RunRecord("other", "2026-03-01T00:00:00+00:00").write(tmp_path)
    RECORD.write(tmp_path)
    assert read_record(tmp_path) == RECORD
    assert [path.name for path in tmp_path.iterdir()] == [RUN_RECORD]


def test_one_of_another_version_is_told_and_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    RECORD.write(tmp_path)
    path = tmp_path / RUN_RECORD
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))
    assert read_record(tmp_path) is None
    assert "is of another version of this library: it is not read" in caplog.text


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"format": "surestep.run"}', b"\xff\xfe", b"[" * 100_000])
def test_one_that_is_damaged_is_told(content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / RUN_RECORD).write_bytes(content)
    assert read_record(tmp_path) is None
    assert "every checkpoint beside it counts as this run's" in caplog.text


def test_one_that_cannot_be_opened_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / RUN_RECORD).mkdir()
    assert read_record(tmp_path) is None
    assert "every checkpoint beside it counts as this run's" in caplog.text
