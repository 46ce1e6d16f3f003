"""How figures of a run are put into words, for terminals, log files and notebooks alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from surestep.training.state import TrainerState

# Figures that the record keeps and that tell a reader nothing while watching.
_UNSPOKEN = frozenset({"total_flos"})


def value_text(value: Any, max_str_len: int = 100) -> str:
    """Return a figure to four digits; text longer than `max_str_len` is named by its length instead."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str) and len(value) > max_str_len:
        return f"[text of {len(value)} characters, more than max_str_len={max_str_len}]"
    return str(value)


def duration_text(seconds: float) -> str:
    """Return seconds as m:ss or h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def pairs_text(pairs: Mapping[str, Any], max_str_len: int = 100) -> str:
    """Return `name value` pairs on one line."""
    return "  ".join(f"{name} {value_text(value, max_str_len)}" for name, value in pairs.items())


def log_line(state: TrainerState, logs: Mapping[str, Any], max_str_len: int = 100) -> str:
    """Return the one line that stands for an entry of the log."""
    done = f"{state.global_step}/{state.max_steps}" if state.max_steps > 0 else str(state.global_step)
    spoken = {name: value for name, value in logs.items() if name not in _UNSPOKEN}
    return f"step {done}  {pairs_text(spoken, max_str_len)}"


def summary_rows(args: Any, state: TrainerState) -> dict[str, str]:
    """Return what is worth reading once a training is over. What the run did not work out is left out."""
    closing: dict[str, Any] = next((entry for entry in reversed(state.log_history) if "train_runtime" in entry), {})
    stopped_early = state.global_step < state.max_steps
    rows = {
        "steps": f"{state.global_step} of {state.max_steps}" if stopped_early else str(state.global_step),
        "epochs": value_text(float(state.epoch or 0)),
        "train_loss": _optional(closing.get("train_loss")),
        "runtime": duration_text(closing["train_runtime"]) if closing else "",
        "samples/s": _optional(closing.get("train_samples_per_second")),
        "best": _best(args, state),
        "output": str(args.output_dir),
    }
    return {name: text for name, text in rows.items() if text}


def _optional(value: Any) -> str:
    return "" if value is None else value_text(value)


def _best(args: Any, state: TrainerState) -> str:
    if state.best_metric is None:
        return ""
    step = "" if state.best_global_step is None else f" at step {state.best_global_step}"
    folder = "" if state.best_model_checkpoint is None else f" ({state.best_model_checkpoint})"
    return f"{args.metric_for_best_model} {value_text(state.best_metric)}{step}{folder}"
