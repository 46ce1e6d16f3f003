"""The doctor: what it finds on machines that are not in order."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from surestep.cli import checkup
from surestep.cli.checkup import Findings, examine

Usage = namedtuple("Usage", "total used free")


def test_this_machine_can_train() -> None:
    findings = examine()
    assert findings.problems == []
    assert findings.facts["torch"] == torch.__version__
    assert set(findings.facts) >= {"python", "surestep", "torch", "transformers", "cores", "disk", "cuda build"}


@pytest.mark.parametrize(
    ("requirement", "installed", "problem", "caution"),
    [
        ("torch>=2.13", "2.13.0+cpu", False, False),
        ("torch>=2.13", "2.9.1", True, False),
        ("torch>=2.13", "3.0", False, False),
        ("torch>=2.13", None, True, False),
        ("transformers>=5.0; extra == 'hf'", "4.57.1", False, True),
        ("transformers>=5.0; extra == 'hf'", None, False, False),
        ("surestep[hf,vision]; extra == 'dev'", None, False, False),
        ("pandas-stubs", None, False, False),
    ],
)
def test_versions_are_compared_as_numbers(
    monkeypatch: pytest.MonkeyPatch, requirement: str, installed: str | None, problem: bool, caution: bool
) -> None:
    monkeypatch.setattr(checkup, "_version", lambda package: installed)
    findings = Findings()
    checkup._compare(requirement, findings)
    assert (bool(findings.problems), bool(findings.cautions)) == (problem, caution)


@pytest.mark.parametrize(
    ("own", "built", "served"),
    [
        ((8, 0), ["sm_80", "sm_90"], True),
        ((8, 6), ["sm_80"], True),
        ((6, 1), ["sm_80"], False),
        ((9, 0), ["sm_80"], False),
    ],
)
def test_a_card_that_torch_was_not_built_for_is_named(own: tuple[int, int], built: list[str], served: bool) -> None:
    findings = Findings()
    card = SimpleNamespace(name="Some card", major=own[0], minor=own[1])
    checkup._check_card(0, card, built, findings)
    assert (findings.problems == []) is served
    assert served or f"sm_{own[0]}{own[1]}" in findings.problems[0]


@pytest.mark.parametrize(("cuda", "said"), [(None, "install a CUDA build"), ("13.0", "the driver is too old")])
def test_a_driver_without_a_card_is_explained(monkeypatch: pytest.MonkeyPatch, cuda: str | None, said: str) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    findings = Findings()
    checkup._explain_missing_card(cuda, findings)
    assert said in findings.cautions[0]


def test_too_many_threads_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4096)
    findings = Findings()
    checkup._look_at_threads(findings)
    assert "set OMP_NUM_THREADS=" in findings.cautions[0]


def test_little_room_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checkup, "_SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(64 * 1024**2, 0, 10 * 1024**2))
    findings = Findings()
    checkup._look_at_disk(findings)
    assert "Only 10.0 MiB are free" in findings.cautions[0]
    assert "--shm-size=1g" in findings.cautions[1]
