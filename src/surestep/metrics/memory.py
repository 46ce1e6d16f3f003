"""How much memory a stage of a run (making the trainer, training, evaluating) takes, on the host and on the device."""

from __future__ import annotations

import gc
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

import torch

from surestep.errors import ArgumentError
from surestep.optional import require
from surestep.runtime.device import choose_device
from surestep.runtime.world import current_world

# How often the host's memory is looked at while a stage runs, in seconds.
_INTERVAL = 0.002


@dataclass
class _Stage:
    """The memory of one stage, in bytes: at its beginning, what stayed allocated, and the peak above the end."""

    begin: int
    alloc: int = 0
    peaked: int = 0


class _Peak(threading.Thread):
    """Samples the resident memory of the process until told to stop; Linux offers no counter to reset."""

    def __init__(self, process: Any) -> None:
        super().__init__(daemon=True, name="surestep-memory")
        self._process = process
        self._done = threading.Event()
        self.highest = 0

    def run(self) -> None:
        """Look, sleep, look again."""
        while True:
            self.highest = max(self.highest, self._process.memory_info().rss)
            if self._done.wait(_INTERVAL):
                return

    def stop(self) -> int:
        """End the sampling and return the highest value seen."""
        self._done.set()
        self.join()
        return max(self.highest, int(self._process.memory_info().rss))


@dataclass
class MemoryMeter:
    """Measures stages one at a time: a stage that begins inside another is part of it and reports nothing.

    Names of the figures are the original's: `<stage>_mem_cpu_alloc_delta`, `<stage>_mem_cpu_peaked_delta`, the same for
    `gpu` on CUDA, and with the first report those of `init` and `before_init_mem_cpu`. Bytes throughout. Without
    `enabled` nothing is measured and nothing imported.
    """

    enabled: bool
    device: torch.device
    _stages: dict[str, dict[str, _Stage]] = field(default_factory=dict)
    _current: str | None = None
    _reported_init: bool = False

    def start(self, stage: str) -> None:
        """Begin a stage, unless one is running."""
        if not self.enabled or self._current is not None:
            return
        self._process = require("psutil", "skip_memory_metrics=False").Process()
        self._current = stage
        gc.collect()
        begin = {"cpu": _Stage(self._process.memory_info().rss)}
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            begin["gpu"] = _Stage(torch.cuda.memory_allocated(self.device))
        self._stages[stage] = begin
        self._peak = _Peak(self._process)
        self._peak.start()

    def stop(self, stage: str, metrics: dict[str, float] | None = None) -> None:
        """End the stage that `start` began and add its figures to `metrics`."""
        if not self.enabled or self._current != stage:
            return
        self._current = None
        highest = self._peak.stop()
        gc.collect()
        measured = self._stages[stage]
        _close(measured["cpu"], self._process.memory_info().rss, highest)
        if "gpu" in measured:
            peak = torch.cuda.max_memory_allocated(self.device)
            _close(measured["gpu"], torch.cuda.memory_allocated(self.device), peak)
        if metrics is not None:
            self._report(stage, metrics)

    def _report(self, stage: str, metrics: dict[str, float]) -> None:
        first = "init" in self._stages and not self._reported_init
        self._reported_init = True
        for name in ("init", stage) if first else (stage,):
            for kind, measured in self._stages[name].items():
                metrics[f"{name}_mem_{kind}_alloc_delta"] = measured.alloc
                metrics[f"{name}_mem_{kind}_peaked_delta"] = measured.peaked
        if first:
            for kind, measured in self._stages["init"].items():
                metrics[f"before_init_mem_{kind}"] = measured.begin


def _close(stage: _Stage, now: int, highest: int) -> None:
    stage.alloc = now - stage.begin
    stage.peaked = max(0, highest - now)


# The method that calls -> the stage that it is.
_STAGES = {
    "__init__": "init",
    "train": "train",
    "_inner_training_loop": "train",
    "_finalize_training": "train",
    "evaluate": "eval",
    "predict": "test",
}


class TrainerMemoryTracker(MemoryMeter):
    """A meter that knows its stage by the method that calls it, for overrides of `train`, `evaluate` and `predict`.

    The original's name and methods; the trainer's own is one.
    """

    stages = _STAGES

    def __init__(self, skip_memory_metrics: bool = False, *, device: torch.device | None = None) -> None:
        super().__init__(not skip_memory_metrics, device or choose_device(current_world()))
        self.skip_memory_metrics = skip_memory_metrics

    def start(self, stage: str | None = None) -> None:
        """Begin the stage of the calling method, unless one is running."""
        if self.enabled:
            super().start(stage or _stage_of(sys._getframe(1).f_code.co_name))

    def stop_and_update_metrics(self, metrics: dict[str, float] | None = None) -> None:
        """End the stage of the calling method and add its figures to `metrics`."""
        if self.enabled:
            self.stop(_stage_of(sys._getframe(1).f_code.co_name), metrics)


def _stage_of(caller: str) -> str:
    if caller not in _STAGES:
        raise ArgumentError(f"{caller} is no stage of a run. Measure in one of: {', '.join(_STAGES)}.")
    return _STAGES[caller]
