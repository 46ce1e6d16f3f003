"""The loop as text, with who listens where."""

from __future__ import annotations

from surestep.training.events import Events, listens

# (indent, what happens, the event fired there)
_LINES = (
    (0, "train begins", "on_train_begin"),
    (0, "for each epoch", None),
    (1, "epoch begins", "on_epoch_begin"),
    (1, "for each group of micro-batches that makes one optimizer step", None),
    (2, "step begins", "on_step_begin"),
    (2, "for each micro-batch: training_step, forward and backward", None),
    (3, "between two of them", "on_substep_end"),
    (2, "clip the gradients", "on_pre_optimizer_step"),
    (2, "step the optimizer", "on_optimizer_step"),
    (2, "step the schedule unless the optimizer's step was skipped; drop the gradients", None),
    (2, "count the samples and the step", "on_step_end"),
    (2, "if somebody asked: log", "on_log"),
    (2, "if somebody asked: evaluate, after each batch of it", "on_prediction_step"),
    (3, "once it is done", "on_evaluate"),
    (2, "if somebody asked: save", "on_save"),
    (2, "leave if somebody asked", None),
    (1, "epoch ends", "on_epoch_end"),
    (1, "log, evaluate, save if somebody asked; leave if somebody asked", None),
    (0, "log the summary; load the best model if the arguments say so", "on_log"),
    (0, "train ends", "on_train_end"),
)


def show_loop(events: Events) -> str:
    """Return the loop, a line for each thing that happens, with the listeners of its event."""
    lines = []
    for indent, text, event in _LINES:
        names = [type(item).__name__ for item in events.callbacks if event and listens(item, event)]
        heard = f"    [{event}: {', '.join(names) or 'nobody'}]" if event else ""
        lines.append("    " * indent + text + heard)
    return "\n".join(lines)
