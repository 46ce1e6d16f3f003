"""Stop once a metric no longer improves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from surestep.errors import ArgumentError
from surestep.logs import get_logger, warn_once
from surestep.training.callback import TrainerCallback
from surestep.training.state import ExportableState, TrainerControl, TrainerState

_logger = get_logger(__name__)


class EarlyStoppingCallback(TrainerCallback, ExportableState):
    """Asks to stop after `early_stopping_patience` evaluations in a row without progress.

    Progress means that `metric_for_best_model` is better than `state.best_metric`, the best of the evaluations before,
    by more than `early_stopping_threshold`. The count is saved in checkpoints. Semantics of the original.
    """

    def __init__(self, early_stopping_patience: int = 1, early_stopping_threshold: float | None = 0.0) -> None:
        if early_stopping_patience < 0:
            raise ArgumentError(
                f"early_stopping_patience={early_stopping_patience} is negative. Write how many evaluations to wait."
            )
        if early_stopping_threshold is not None and not early_stopping_threshold >= 0:
            raise ArgumentError(
                f"early_stopping_threshold={early_stopping_threshold} is no size of an improvement. Write 0.0 or more."
            )
        self.early_stopping_patience = early_stopping_patience
        self.early_stopping_threshold = early_stopping_threshold
        self.early_stopping_patience_counter = 0

    def check_metric_value(self, args: Any, state: TrainerState, control: TrainerControl, metric_value: float) -> None:
        """Count the evaluation, or start to count anew if it brought progress."""
        best = state.best_metric
        if best is None or self._improves(args, metric_value, best):
            self.early_stopping_patience_counter = 0
        else:
            self.early_stopping_patience_counter += 1

    def _improves(self, args: Any, value: float, best: float) -> bool:
        better = value > best if args.greater_is_better else value < best
        return better and abs(value - best) > (self.early_stopping_threshold or 0.0)

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Refuse arguments under which nothing would ever be compared."""
        if args.metric_for_best_model is None:
            raise ArgumentError(
                "EarlyStoppingCallback compares metric_for_best_model, which is None. "
                'Write metric_for_best_model="loss", or the name of a metric that compute_metrics returns.'
            )
        if args.eval_strategy == "no":
            raise ArgumentError(
                'EarlyStoppingCallback acts on evaluations, and eval_strategy="no" makes none. '
                'Write eval_strategy="epoch" or eval_strategy="steps".'
            )
        if not args.load_best_model_at_end:
            _logger.warning(
                "EarlyStoppingCallback stops after the best evaluation, not at it, and load_best_model_at_end=False "
                "keeps the last weights. Write load_best_model_at_end=True to end with the best."
            )

    def on_evaluate(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Compare the evaluation with the best before it."""
        name = str(args.metric_for_best_model)
        name = name if name.startswith("eval_") else f"eval_{name}"
        value = (metrics or {}).get(name)
        if value is None:
            warn_once(
                _logger,
                f"An evaluation has no '{name}', which metric_for_best_model asks for: it does not count for early "
                f"stopping. It has: {', '.join(metrics or ()) or 'nothing'}.",
            )
            return
        self.check_metric_value(args, state, control, value)
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True

    def state(self) -> dict[str, dict[str, Any]]:
        """Return the arguments and the count."""
        return {
            "args": {
                "early_stopping_patience": self.early_stopping_patience,
                "early_stopping_threshold": self.early_stopping_threshold,
            },
            "attributes": {"early_stopping_patience_counter": self.early_stopping_patience_counter},
        }
