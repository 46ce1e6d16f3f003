"""Where the run takes place: device, ranks, and what follows from them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from surestep.config.enums import ParallelMode
from surestep.config.topics.hardware import splits_batches
from surestep.config.topics.logging import LOG_LEVELS
from surestep.logs import get_logger
from surestep.runtime.world import current_world

if TYPE_CHECKING:
    import torch

    from surestep.config.fields import AllFields
else:
    AllFields = object


class Place(AllFields):
    """What the arguments tell about device and ranks, worked out whenever it is asked for."""

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        from surestep.runtime.device import choose_device

        return choose_device(current_world(), use_cpu=self.use_cpu)

    @property
    def _setup_devices(self) -> torch.device:
        """The original's name for `device`; setting up is the engine's work here."""
        return self.device

    @property
    def distributed_state(self) -> Any:
        """Accelerate's state of this process, which libraries written for the original ask; needs the package."""
        from surestep.runtime.accelerate_state import process_state

        return process_state(self.device, "TrainingArguments.distributed_state")

    def _join_group(self) -> None:
        """Join the other processes of the run, where there are some: scripts expect it once arguments are made."""
        world = current_world()
        if world.size > 1 and "MASTER_ADDR" in os.environ:
            from surestep.runtime.collectives import join_group

            join_group(world, self.device, backend=self.ddp_backend, seconds=self.ddp_timeout)

    @property
    def n_gpu(self) -> int:
        """Devices other than the CPU that this process computes on: one or none."""
        return int(self.device.type != "cpu")

    @property
    def train_batch_size(self) -> int:
        """Samples of one micro-batch of this process in training."""
        return self.per_device_train_batch_size

    @property
    def eval_batch_size(self) -> int:
        """Samples of one batch of this process in evaluation."""
        return self.per_device_eval_batch_size

    @property
    def parallel_mode(self) -> ParallelMode:
        """How the processes of the run share the work."""
        return ParallelMode.DISTRIBUTED if current_world().size > 1 else ParallelMode.NOT_PARALLEL

    @property
    def world_size(self) -> int:
        """Processes of the run."""
        return current_world().size

    @property
    def process_index(self) -> int:
        """Rank of this process."""
        return current_world().rank

    @property
    def local_process_index(self) -> int:
        """Rank of this process on its machine."""
        return current_world().local_rank

    @property
    def should_log(self) -> bool:
        """Whether this process speaks: one of each machine, or one of all."""
        return current_world().is_local_main if self.log_on_each_node else current_world().is_main

    @property
    def should_save(self) -> bool:
        """Whether this process writes: one of each machine, or one of all."""
        return current_world().is_local_main if self.save_on_each_node else current_world().is_main

    @property
    def place_model_on_device(self) -> bool | None:
        """Whether the trainer moves the model; None leaves it to the trainer. Subclasses may say."""
        return None

    @property
    def ddp_timeout_delta(self) -> timedelta:
        """How long a process waits for the others."""
        return timedelta(seconds=self.ddp_timeout)

    def get_device_count(self) -> int:
        """Return the number of devices that the run trains on, over all processes."""
        return current_world().size

    def calculate_effective_batch_size(self) -> int:
        """Return the samples of one optimizer step: per device, times devices, times accumulation.

        Under `split_batches` the size per device is that of all devices together.
        """
        devices = 1 if splits_batches(self) else self.get_device_count()
        return self.per_device_train_batch_size * devices * self.gradient_accumulation_steps

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Return the steps of warm-up in a run of so many steps."""
        if self.warmup_steps >= 1:
            return int(self.warmup_steps)
        return math.ceil(num_training_steps * self.warmup_steps)

    def get_process_log_level(self) -> int:
        """Return the level of Python's `logging` for this process; "passive" is the level that is set already."""
        level = LOG_LEVELS[self.log_level if self.should_log else self.log_level_replica]
        return level or get_logger("surestep").getEffectiveLevel()

    @contextmanager
    def main_process_first(self, local: bool = True, desc: str = "work") -> Iterator[None]:
        """Let the main process (of each machine when `local`) run the body first; `desc` names it in logs."""
        logger = get_logger(__name__)
        logger.debug("%s: the main %sprocess goes first", desc, "local " * local)
        self._join_group()
        with current_world().main_first(local=local):
            yield
        logger.debug("%s: done", desc)
