"""A trace of some steps by torch's profiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from surestep.errors import ArgumentError
from surestep.training.callback import TrainerCallback
from surestep.training.state import TrainerControl, TrainerState


class ProfilerCallback(TrainerCallback):
    """Records `steps` optimizer steps, after `skip` of warm-up, and writes a trace for each rank.

    The trace is `<output_dir>/profile/steps-<first>-<last>.rank<rank>.json`, for chrome://tracing or Perfetto; beside
    it stands a table of the operators that took longest. Keywords go to `torch.profiler.profile` (`record_shapes`,
    `profile_memory`, `with_stack`).
    """

    def __init__(self, steps: int = 5, skip: int = 10, **options: Any) -> None:
        if steps < 1 or skip < 0:
            raise ArgumentError(
                f"ProfilerCallback(steps={steps}, skip={skip}): give steps of 1 or more, skip of 0 or more."
            )
        self.steps = steps
        self.skip = skip
        self.options = options
        self._profile: Any = None
        self._first_step = 0

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Work out where to begin; a run too short for the skipped steps is recorded at its end."""
        last_chance = max(state.max_steps - self.steps, state.global_step)
        self._first_step = min(state.global_step + self.skip, last_chance) + 1

    def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Begin to record at the first step of interest."""
        if self._profile is None and state.global_step + 1 == self._first_step:
            from torch.profiler import profile

            self._profile = profile(**self.options)
            self._profile.start()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the trace once there are enough steps in it."""
        if state.global_step - self._first_step + 1 == self.steps:
            self._write(args, state.global_step)

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write what there is of a run that ended early."""
        self._write(args, state.global_step)

    def close(self) -> None:
        """Stop recording; after an error nothing is written."""
        if self._profile is not None:
            self._profile.stop()
            self._profile = None

    def _write(self, args: Any, last_step: int) -> None:
        profile = self._profile
        if profile is None:
            return
        self.close()
        folder = Path(args.output_dir) / "profile"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"steps-{self._first_step}-{last_step}.rank{args.process_index}"
        profile.export_chrome_trace(str(folder / f"{name}.json"))
        table = profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=40)
        (folder / f"{name}.txt").write_text(table, encoding="utf-8")
