"""Memory figures: their names, what they count, and that they cost nothing when they are off."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from surestep.errors import ArgumentError
from surestep.metrics import memory
from surestep.metrics.memory import MemoryMeter, TrainerMemoryTracker

CPU = torch.device("cpu")
MB = 2**20


class Resident:
    """A process whose resident memory is what the test says."""

    def __init__(self) -> None:
        self.rss = 100 * MB

    def memory_info(self) -> Any:
        return SimpleNamespace(rss=self.rss)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Resident:
    resident = Resident()
    monkeypatch.setattr(memory, "require", lambda *_: SimpleNamespace(Process=lambda: resident))
    return resident


def test_figures_have_the_names_of_the_original(process: Resident) -> None:
    meter, metrics = MemoryMeter(enabled=True, device=CPU), {"train_loss": 1.0}
    meter.start("init")
    process.rss = 130 * MB
    meter.stop("init")
    meter.start("train")
    process.rss = 150 * MB
    meter.stop("train", metrics)

    assert metrics == {
        "train_loss": 1.0,
        "before_init_mem_cpu": 100 * MB,
        "init_mem_cpu_alloc_delta": 30 * MB,
        "init_mem_cpu_peaked_delta": 0,
        "train_mem_cpu_alloc_delta": 20 * MB,
        "train_mem_cpu_peaked_delta": 0,
    }


def test_the_making_of_the_trainer_is_reported_once(process: Resident) -> None:
    meter = MemoryMeter(enabled=True, device=CPU)
    meter.start("init")
    meter.stop("init")
    first: dict[str, float] = {}
    second: dict[str, float] = {}
    for metrics in (first, second):
        meter.start("eval")
        meter.stop("eval", metrics)

    assert "init_mem_cpu_alloc_delta" in first
    assert list(second) == ["eval_mem_cpu_alloc_delta", "eval_mem_cpu_peaked_delta"]


def test_a_peak_in_between_is_seen(process: Resident) -> None:
    meter, metrics = MemoryMeter(enabled=True, device=CPU), {}
    meter.start("train")
    process.rss = 180 * MB
    peak = meter._peak
    while peak.highest < process.rss:
        peak._done.wait(0.001)
    process.rss = 110 * MB
    meter.stop("train", metrics)

    assert metrics == {"train_mem_cpu_alloc_delta": 10 * MB, "train_mem_cpu_peaked_delta": 70 * MB}
    assert not peak.is_alive()


def test_a_stage_within_another_is_part_of_it(process: Resident) -> None:
    meter, inner, outer = MemoryMeter(enabled=True, device=CPU), {}, {}
    meter.start("train")
    meter.start("eval")
    meter.stop("eval", inner)
    meter.stop("train", outer)

    assert inner == {}
    assert list(outer) == ["train_mem_cpu_alloc_delta", "train_mem_cpu_peaked_delta"]


def test_a_stage_that_ended_already_is_not_ended_again(process: Resident) -> None:
    meter, metrics = MemoryMeter(enabled=True, device=CPU), {}
    meter.start("train")
    meter.stop("train")
    meter.stop("train", metrics)

    assert metrics == {}


def test_the_card_is_measured_too(process: Resident, monkeypatch: pytest.MonkeyPatch) -> None:
    allocated = iter([5 * MB, 8 * MB])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: next(allocated))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 12 * MB)
    meter, metrics = MemoryMeter(enabled=True, device=torch.device("cuda")), {}
    meter.start("train")
    meter.stop("train", metrics)

    assert metrics["train_mem_gpu_alloc_delta"] == 3 * MB
    assert metrics["train_mem_gpu_peaked_delta"] == 4 * MB


def test_switched_off_it_starts_and_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "require", lambda *_: pytest.fail("imported"))
    meter, metrics = MemoryMeter(enabled=False, device=CPU), {}
    meter.start("train")
    meter.stop("train", metrics)

    assert metrics == {}
    assert "surestep-memory" not in [thread.name for thread in threading.enumerate()]


def test_a_real_process_can_be_measured() -> None:
    meter, metrics = MemoryMeter(enabled=True, device=CPU), {}
    meter.start("train")
    kept = bytearray(64 * MB)
    kept[::4096] = b"x" * len(kept[::4096])
    meter.stop("train", metrics)

    assert metrics["train_mem_cpu_alloc_delta"] > 32 * MB


def test_a_stage_is_known_by_the_method_that_calls(process: Resident) -> None:
    class Runner:
        def __init__(self) -> None:
            self.tracker = TrainerMemoryTracker(device=torch.device("cpu"))
            self.tracker.start()
            self.tracker.stop_and_update_metrics()

        def train(self) -> dict[str, float]:
            metrics: dict[str, float] = {}
            self.tracker.start()
            self.evaluate()
            self.tracker.stop_and_update_metrics(metrics)
            return metrics

        def evaluate(self) -> None:
            self.tracker.start()
            self.tracker.stop_and_update_metrics({})

        def elsewhere(self) -> None:
            self.tracker.start()

    runner = Runner()
    kinds = ("alloc_delta", "peaked_delta")

    names = [f"{stage}_mem_cpu_{kind}" for stage in ("init", "train") for kind in kinds]
    assert sorted(runner.train()) == sorted([*names, "before_init_mem_cpu"])
    with pytest.raises(ArgumentError, match="elsewhere is no stage of a run"):
        runner.elsewhere()
    TrainerMemoryTracker(skip_memory_metrics=True).start()
