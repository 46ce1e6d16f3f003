"""Accelerate's state of the process: bound to what the run has, with no process group made on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState

from surestep import TrainingArguments
from surestep.errors import NotServedError
from surestep.runtime.accelerate_state import process_state

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _accelerate_as_found() -> Iterator[None]:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def _launched(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    for name, value in {"RANK": 0, "WORLD_SIZE": size, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": size}.items():
        monkeypatch.setenv(name, str(value))


def test_a_launched_process_alone_makes_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    _launched(monkeypatch, 1)
    state = process_state(CPU, "this")

    assert (state.num_processes, state.device) == (1, CPU)
    assert not torch.distributed.is_initialized()
    assert os.environ["LOCAL_RANK"] == "0"


def test_several_processes_without_a_group_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _launched(monkeypatch, 2)
    with pytest.raises(NotServedError, match=r"this asks accelerate about 2 processes.*init_process_group"):
        process_state(CPU, "this")
    assert not PartialState._shared_state


def test_a_state_that_fits_is_kept_and_one_of_another_device_is_not() -> None:
    known = process_state(CPU, "this")
    known.debug = "of the user"
    assert process_state(CPU, "this").debug == "of the user"
    known.device = torch.device("meta")
    anew = process_state(CPU, "this")
    assert (anew.device, anew.debug) == (CPU, False)


def test_arguments_tell_accelerate_where_it_is_imported(tmp_path: Path) -> None:
    args = TrainingArguments(str(tmp_path), use_cpu=True)

    assert PartialState._shared_state["device"] == CPU
    assert args.distributed_state.distributed_type == "NO"


def test_a_state_that_was_configured_on_purpose_is_left_alone(tmp_path: Path) -> None:
    TrainingArguments(str(tmp_path), use_cpu=True, accelerator_config={"use_configured_state": True})
    assert not PartialState._shared_state


def test_arguments_import_no_accelerate(tmp_path: Path) -> None:
    code = (
        "import sys; from surestep import TrainingArguments; "
        f"TrainingArguments({str(tmp_path)!r}, use_cpu=True); assert 'accelerate' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


_RANK = """
import os, sys, torch.distributed as dist
from datetime import timedelta
rank, file = int(sys.argv[1]), sys.argv[2]
os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE="2")
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2, timeout=timedelta(seconds=60))
import torch
from surestep.runtime.accelerate_state import process_state
groups = len(dist.distributed_c10d._world.pg_map)
state = process_state(torch.device("cpu"), "this")
assert len(dist.distributed_c10d._world.pg_map) == groups == 1
assert (state.num_processes, state.process_index) == (2, rank)
state.wait_for_everyone()
dist.destroy_process_group()
"""


def test_two_processes_share_the_group_of_the_run(tmp_path: Path) -> None:
    ranks = [subprocess.Popen([sys.executable, "-c", _RANK, str(rank), str(tmp_path / "store")]) for rank in (0, 1)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
