"""Runs that are cut short in every way, from the outside: the same command goes on to the same weights."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import DIGITS, SMALL, Ended, command, environment, results, wait_for
from tests.warm import Process, server

Run = Callable[..., Ended]
Begin = Callable[..., Process]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the final weights of the small job, trained in one go."""
    folder = tmp_path_factory.mktemp("whole")
    assert server().run(command("run", DIGITS, *SMALL), cwd=folder, env=environment()).returncode == 0
    return (folder / "runs" / "digits" / "model" / "model.safetensors").read_bytes()


def _steps_saved(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))


def test_a_killed_run_goes_on_to_the_same_weights(surestep: Run, begin: Begin, tmp_path: Path, whole: bytes) -> None:
    folder = tmp_path / "runs" / "digits"
    process = begin("run", DIGITS, *SMALL)
    wait_for(folder / "checkpoint-80", process)
    process.kill()
    process.communicate()
    assert not (folder / "results.json").exists()

    again = surestep("run", DIGITS, *SMALL)
    assert again.code == 0, again.err
    found = results(folder)
    assert found["resumed_from_step"] >= 80
    assert f"Going on from step {found['resumed_from_step']} of 160." in again.err
    assert found["steps"] == 160
    assert (folder / "model" / "model.safetensors").read_bytes() == whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_and_goes_on_to_the_same_weights(
    surestep: Run, begin: Begin, tmp_path: Path, whole: bytes, number: signal.Signals
) -> None:
    folder = tmp_path / "runs" / "digits"
    process = begin("run", DIGITS, *SMALL)
    wait_for(folder / "checkpoint-40", process)
    process.send_signal(number)
    said, _ = process.communicate()
    assert process.returncode == 128 + number, said
    assert "finishing this step, then saving" in said
    stopped = _steps_saved(folder)[-1]
    assert f"Stopped by {number.name} after step {stopped}; this step is saved." in said
    assert "The run stays in runs/digits. The same command goes on." in said

    again = surestep("run", DIGITS, *SMALL)
    assert again.code == 0, again.err
    assert results(folder)["resumed_from_step"] == stopped
    assert results(folder)["steps"] == 160
    assert (folder / "model" / "model.safetensors").read_bytes() == whole


def test_ctrl_c_reaches_the_workers_too_and_is_told_once(begin: Begin, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "digits"
    workers = ("arguments.dataloader_num_workers=2", "arguments.dataloader_persistent_workers=true")
    process = begin("run", DIGITS, *SMALL, "arguments.num_train_epochs=500", *workers)
    wait_for(folder / "checkpoint-40", process)
    # A terminal sends the signal to all processes of the group.
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate()
    assert process.returncode == 130, said
    assert said.count("finishing this step, then saving") == 1
    assert f"Stopped by SIGINT after step {_steps_saved(folder)[-1]}" in said


def test_damaged_checkpoints_are_passed_over(surestep: Run, begin: Begin, tmp_path: Path, whole: bytes) -> None:
    folder = tmp_path / "runs" / "digits"
    process = begin("run", DIGITS, *SMALL)
    wait_for(folder / "checkpoint-40", process)
    process.kill()
    process.communicate()
    for weights in folder.glob("checkpoint-*/model.safetensors"):
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    again = surestep("run", DIGITS, *SMALL)
    assert again.code == 0, again.err
    assert "training starts anew" in again.err
    assert results(folder)["resumed_from_step"] == 0
    assert (folder / "model" / "model.safetensors").read_bytes() == whole


def test_two_runs_in_one_folder_are_kept_apart(here: Run, begin: Begin, tmp_path: Path) -> None:
    process = begin("run", DIGITS, *SMALL, "arguments.num_train_epochs=500")
    wait_for(tmp_path / "runs" / "digits" / "job.json", process)
    for extra in ((), ("--fresh",)):
        second = here("run", DIGITS, *SMALL, *extra)
        assert second.code == 2
        assert f"runs/digits is being written to by process {process.pid} " in second.err
    process.kill()
    process.communicate()


def test_a_second_interrupt_stops_at_once(begin: Begin, tmp_path: Path) -> None:
    process = begin("run", DIGITS, *SMALL, "arguments.num_train_epochs=500")
    wait_for(tmp_path / "runs" / "digits" / "checkpoint-40", process)
    # The second one is waiting when the process wakes up again, if the first one has not ended it by then.
    for number in (signal.SIGINT, signal.SIGSTOP, signal.SIGINT, signal.SIGCONT):
        process.send_signal(number)
    said, _ = process.communicate()
    assert process.returncode == 130, said
    assert "Traceback" not in said
