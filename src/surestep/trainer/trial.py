"""Whether evaluations give the figures that a run waits for: tried on their first batch, before the first step."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from surestep.config.enums import IntervalStrategy
from surestep.config.topics.best import key_of, tracked
from surestep.errors import ArgumentError
from surestep.logs import get_logger
from surestep.runtime.nested import batch_length
from surestep.runtime.random import capture_random_state, restore_random_state
from surestep.runtime.together import failing_together
from surestep.trainer.checks import missing_figure
from surestep.training.events import Events

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer

_logger = get_logger(__name__)
# What every evaluation gives, or what the clock adds to it.
_ALWAYS = ("_loss", "_runtime", "_per_second", "_model_preparation_time")


class FirstBatch:
    """A loader of the first batch of another."""

    def __init__(self, loader: Any) -> None:
        self.batch = next(iter(loader), None)
        self.batch_size = getattr(loader, "batch_size", None)
        # Of as many samples as there are, for whoever counts them.
        self.dataset = [None] * (batch_length(self.batch) or 0)

    def __len__(self) -> int:
        return int(self.batch is not None)

    def __iter__(self) -> Iterator[Any]:
        return iter([] if self.batch is None else [self.batch])


class _Tried:
    """A metric function that notes whether it was called, and what it raised, in the place of raising it."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.called = False
        self.error: Exception | None = None

    def __call__(self, prediction: Any, **asked: Any) -> Any:
        self.called = True
        try:
            # Of one batch a metric may warn, or fail, where of the whole set it does not.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self.function(prediction, **asked)
        except Exception as error:
            self.error = error
            return {}


def wanted_figures(trainer: Trainer) -> dict[str, str]:
    """Return the figures that something in the run depends on, each with the setting that names it."""
    args, wanted = trainer.args, {}
    for entry in args.track_best or ():
        name = tracked(entry)[0]
        wanted[key_of(name)] = f"track_best has '{name}'"
    if args.metric_for_best_model is not None:
        wanted[key_of(args.metric_for_best_model)] = f"metric_for_best_model is '{args.metric_for_best_model}'"
    return wanted


def first_figures(trainer: Trainer) -> dict[str, Any]:
    """Return the figures of the first batch of every evaluation set."""
    sets: list[str | None] = [*trainer.eval_dataset] if isinstance(trainer.eval_dataset, dict) else [None]
    figures: dict[str, Any] = {}
    trainer._begin_trial()
    for name in sets:
        with failing_together(trainer.engine.strategy):
            loader = FirstBatch(trainer.get_eval_dataloader(name))
        prefix = "eval" if name is None else f"eval_{name}"
        only_loss = True if trainer.compute_metrics is None else None
        found = trainer.evaluation_loop(loader, "Evaluation", only_loss, metric_key_prefix=prefix).metrics or {}
        figures |= {key: value for key, value in found.items() if not key.endswith("_model_preparation_time")}
    return figures


def check_figures(trainer: Trainer) -> None:
    """Raise `ArgumentError` where a setting names a figure that no evaluation gives.

    A name that only a metric function can give is looked for in what that returns for the first batch of each
    evaluation set. Trainer, generators and modes are as before afterwards, and callbacks hear nothing. Where `evaluate`
    is overridden, or the first batch cannot be had twice, nothing is tried: such a name is looked for in the first
    evaluation. A callback that hears `on_evaluate` may add figures, so that there is a warning and no error.
    """
    wanted = {key: setting for key, setting in wanted_figures(trainer).items() if not _is_certain(trainer, key)}
    if trainer.args.eval_strategy == IntervalStrategy.NO or not wanted or _is_open(trainer):
        return
    with _aside(trainer):
        tried = _Tried(trainer.compute_metrics)
        if trainer.compute_metrics is not None:
            trainer.compute_metrics = tried
        figures = first_figures(trainer)
    missing = [key for key in wanted if key not in figures and not key.endswith(_ALWAYS[1:])]
    if tried.error is not None and missing:
        _logger.warning(
            "compute_metrics fails on the first evaluation batch (%s: %s): whether it gives %s shows when a whole set "
            "is evaluated. trainer.preflight() shows the error.",
            type(tried.error).__name__,
            tried.error,
            ", ".join(missing),
        )
        return
    kinds = map(type, trainer.callback_handler.callbacks)
    adding = [kind.__name__ for kind in kinds if not _is_ours(getattr(kind, "on_evaluate", None))]
    for key in missing:
        problem = missing_figure(wanted[key], key, figures) + _uncalled(trainer, tried)
        if not adding:
            raise ArgumentError(problem)
        _logger.warning("%s Unless %s adds it in on_evaluate, the first evaluation will lack it.", problem, adding[0])


def _is_ours(method: Any) -> bool:
    """Say whether a method is the library's own, or there is none; bases of the original's do as little."""
    return method is None or str(method.__module__).startswith(("surestep.", "transformers."))


def _is_certain(trainer: Trainer, key: str) -> bool:
    """Say whether every evaluation gives a figure, whatever its metrics are."""
    sets = trainer.eval_dataset
    prefixes = [f"eval_{name}" for name in sets] if isinstance(sets, dict) else ["eval"]
    return key in {prefix + suffix for prefix in prefixes for suffix in _ALWAYS}


def _is_open(trainer: Trainer) -> bool:
    """Say whether the first batch cannot tell what an evaluation gives."""
    if any(not _is_ours(getattr(type(trainer), name)) for name in ("evaluate", "evaluation_loop")):
        return True
    sets = trainer.eval_dataset.values() if isinstance(trainer.eval_dataset, dict) else [trainer.eval_dataset]
    return any(one is None or hasattr(one, "__next__") for one in sets)


def _uncalled(trainer: Trainer, tried: _Tried) -> str:
    """Return why a metric function had nothing to do with it, where it was not even called."""
    if tried.called or trainer.compute_metrics is None:
        return ""
    if trainer.args.prediction_loss_only:
        return " compute_metrics is not called, for prediction_loss_only=True."
    names = ", ".join(trainer.label_names) or "none"
    return f" compute_metrics is not called: the batch lacks predictions or labels (label_names: {names})."


@contextmanager
def _aside(trainer: Trainer) -> Iterator[None]:
    """Evaluate in the body without a trace: attributes, generators and modes are as before when it ends."""
    own, random = dict(vars(trainer)), capture_random_state()
    modes = {module: module.training for module in trainer.model.modules()}
    trainer.callback_handler = Events(trainer, [], model=trainer.model, processing_class=trainer.processing_class)
    trainer.state, trainer.control = copy.deepcopy(trainer.state), copy.copy(trainer.control)
    # A kept loader would begin its second pass in the first evaluation; an optimizer with modes would change weights.
    trainer._eval_dataloaders, trainer.optimizer = {}, None
    try:
        yield
    finally:
        # It is of the model, and was asked of it.
        own["_divides_by_items"] = trainer._divides_by_items
        vars(trainer).clear()
        vars(trainer).update(own)
        restore_random_state(random)
        for module, training in modes.items():
            module.training = training
