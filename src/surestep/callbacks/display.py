"""What every display of a run shares: the figures, read when they are drawn, and the events that feed them."""

from __future__ import annotations

import sys
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

from surestep.callbacks.wording import duration_text, log_line, pairs_text, summary_rows, value_text
from surestep.runtime.world import current_world
from surestep.training.callback import TrainerCallback
from surestep.training.state import TrainerControl, TrainerState

# The figures beside a bar, and what they are called there.
_BESIDE = {"loss": "loss", "learning_rate": "lr"}


class RunView:
    """A run as a display sees it, from the thread that draws. What changes is replaced, never altered in place."""

    def __init__(self) -> None:
        self.state: TrainerState | None = None
        self.latest: dict[str, str] = {}
        self.predicted = 0
        self.to_predict: int | None = None
        self._samples_per_step: int | None = None
        self._begin = (0.0, 0)
        self._seen = _new_window()

    def begin(self, args: Any, state: TrainerState) -> None:
        """Follow the training that `state` counts."""
        per_rank = state.train_batch_size
        self._samples_per_step = per_rank and per_rank * args.gradient_accumulation_steps * current_world().size
        self._begin = (time.monotonic(), state.global_step)
        self.latest = {}
        self._seen = _new_window()
        self.state = state

    def end(self) -> None:
        """Forget the training."""
        self.state = None
        self.end_prediction()

    def end_prediction(self) -> None:
        """Forget the predictions; the time they took is no part of the speed of training."""
        self.predicted, self.to_predict = 0, None
        self._seen = _new_window()

    def note(self, logs: Mapping[str, Any]) -> None:
        """Keep those figures of an entry of the log that belong beside a bar."""
        self.latest = self.latest | {_BESIDE[name]: value_text(logs[name]) for name in _BESIDE if name in logs}

    def speed(self) -> str:
        """Return samples (steps, where the batch size is unknown) per second over the last draws; "" at the start."""
        state, seen = self.state, self._seen
        if state is None or self.predicted:
            return ""
        seen.append((time.monotonic(), state.global_step))
        (first, begin), (last, end) = seen[0], seen[-1]
        if last <= first or end <= begin:
            return ""
        rate = (end - begin) / (last - first)
        if self._samples_per_step is None:
            return f"{rate:,.2f} steps/s"
        return f"{rate * self._samples_per_step:,.0f} samples/s"

    def seconds_left(self) -> float | None:
        """Return the time to the last step at the pace so far, evaluation and saving included; None at the start."""
        state, (begun, first) = self.state, self._begin
        if state is None or state.global_step <= first:
            return None
        pace = (time.monotonic() - begun) / (state.global_step - first)
        return max(state.max_steps - state.global_step, 0) * pace


def _new_window() -> deque[tuple[float, int]]:
    """Return an empty record of (clock, step), long enough for half a minute of draws."""
    return deque(maxlen=120)


def beside_bar(run: RunView) -> str:
    """Return the figures that stand beside a bar."""
    left = run.seconds_left()
    parts = [f"{name} {text}" for name, text in run.latest.items()]
    parts += [run.speed(), "" if left is None else f"{duration_text(left)} left"]
    return "  ".join(part for part in parts if part)


class Face(Protocol):
    """A place where a run is shown."""

    def say(self, line: str) -> None:
        """Write one line that stays."""

    def conclude(self, rows: Mapping[str, str]) -> None:
        """Write the summary of a training."""

    def close(self) -> None:
        """Stop drawing and leave the place tidy; closing again does nothing."""


class Lines:
    """Plain text on the standard output."""

    def say(self, line: str) -> None:
        """Write one line at once, for whoever follows the file."""
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def conclude(self, rows: Mapping[str, str]) -> None:
        """Write the summary as one line."""
        self.say("done  " + pairs_text(rows, max_str_len=1000))

    def close(self) -> None:
        """Do nothing: a line needs no tidying."""


class DisplayCallback(TrainerCallback):
    """Base of the displays. It listens to no event of a step: a face draws on its own clock."""

    def __init__(self, max_str_len: int = 100) -> None:
        self.max_str_len = max_str_len
        self._run = RunView()
        self._face: Face = Lines()

    @abstractmethod
    def _open_face(self, args: Any, run: RunView) -> Face:
        """Return where this process can show a run now."""

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Show the training."""
        if state.is_world_process_zero:
            self.close()
            self._run.begin(args, state)
            self._face = self._open_face(args, self._run)

    def on_prediction_step(
        self, args: Any, state: TrainerState, control: TrainerControl, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        """Count the batch; the first one of a round shows the round."""
        if not state.is_world_process_zero:
            return
        if self._run.predicted == 0:
            self._run.to_predict = _length(eval_dataloader)
            if self._run.state is None:
                self._face = self._open_face(args, self._run)
        self._run.predicted += 1

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Take the round of predictions away."""
        self._end_prediction()

    def on_predict(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Take the round of predictions away."""
        self._end_prediction()

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the entry as a line; the closing figures of a training wait for its summary."""
        if state.is_world_process_zero and logs and "train_runtime" not in logs:
            self._run.note(logs)
            self._face.say(log_line(state, logs, self.max_str_len))

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the summary."""
        if state.is_world_process_zero:
            self._face.conclude(summary_rows(args, state))
            self.close()

    def close(self) -> None:
        """Stop showing the run. To be called when a training or evaluation fails; calling again is harmless."""
        face, self._face = self._face, Lines()
        face.close()
        self._run.end()

    def _end_prediction(self) -> None:
        if self._run.state is None:
            self.close()
        self._run.end_prediction()


def _length(loader: Any) -> int | None:
    """Return the number of batches, None where nobody knows it beforehand."""
    try:
        return len(loader)
    except TypeError:
        return None
