"""What was written for older versions of the original: arguments, overrides of an older form, overrides in vain.

Whatever is served in an older form warns once, with today's spelling, at the line that should change. What became of
each name stands in `older_names`; attributes that are gone, in `points.older`.
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

from surestep.errors import ArgumentError, NotServedError, UnknownArgumentError
from surestep.logs import get_logger, warn_where_written
from surestep.trainer.older_names import GONE_METHODS, OLD_ARGUMENTS, POINTS, UNCALLED, Point, fits

logger = get_logger(__name__)

# The constructor and train


def take_older_arguments(older: dict[str, Any], known: list[str], processing_class: Any) -> Any:
    """Return the processing class, which older scripts pass as `tokenizer`; refuse what was never an argument.

    What the trainer takes later on, `prediction_loss_only` and `tb_writer`, stays in `older`.
    """
    for name in older:
        if name not in OLD_ARGUMENTS:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UnknownArgumentError(f"Trainer takes no argument '{name}'.{hint}")
    for name in older:
        warnings.warn(
            f"Trainer({name}=...) is an older form: write {OLD_ARGUMENTS[name]}.", FutureWarning, stacklevel=3
        )
    if older.get("tokenizer") is None:
        return processing_class
    if processing_class is not None:
        raise UnknownArgumentError("Trainer got tokenizer and processing_class. Pass processing_class alone.")
    return older["tokenizer"]


def with_writer(callbacks: list[Any], writer: Any) -> list[Any]:
    """Return the callbacks with an older script's TensorBoard writer in use."""
    from surestep.callbacks.trackers.tensorboard import TensorBoardCallback

    if writer is None:
        return callbacks
    return [*(one for one in callbacks if one is not TensorBoardCallback), TensorBoardCallback(writer)]


def older_resume(older: dict[str, Any], resume_from_checkpoint: Any) -> Any:
    """Return what to resume from, which older scripts pass to `train` as `model_path`.

    In the 3.x years the path of a pretrained model was passed as well: a folder without a trainer's state begins anew.
    """
    for name in older:
        if name != "model_path":
            raise UnknownArgumentError(f"Trainer.train() takes no argument '{name}'.")
    path = older.get("model_path")
    if "model_path" in older:
        warnings.warn(
            "train(model_path=...) is an older form: write resume_from_checkpoint=...", FutureWarning, stacklevel=3
        )
    if path is None or resume_from_checkpoint is not None:
        return resume_from_checkpoint
    if not (Path(path) / "trainer_state.json").is_file():
        logger.warning("model_path is '%s', where no training stopped: training starts with the model as it is.", path)
        return None
    return path


# Overrides


def _outside(trainer: Any) -> list[type]:
    """Return the user's classes of a trainer."""
    return [kind for kind in type(trainer).__mro__ if not kind.__module__.startswith("surestep.")]


def overridden(trainer: Any, names: Iterable[str]) -> list[str]:
    """Return those of the names that a subclass, or somebody on the trainer itself, has put something else under."""
    kinds = _outside(trainer)
    return [name for name in names if name in vars(trainer) or any(name in vars(kind) for kind in kinds)]


def refuse_uncalled_overrides(trainer: Any) -> None:
    """Refuse a subclass that overrides what nothing here calls: it would be bypassed in silence."""
    for kind in _outside(trainer):
        for name in filter(vars(kind).__contains__, UNCALLED):
            raise NotServedError(
                f"{kind.__name__} overrides {name}, which nothing calls in this trainer. In its place: "
                f"{UNCALLED[name]}."
            )
        for name in filter(vars(kind).__contains__, GONE_METHODS):
            message = f"Nothing calls {kind.__name__}.{name} any more. In its place: {GONE_METHODS[name]}."
            warn_where_written(vars(kind)[name], message)


def adapt_older_methods(trainer: Any) -> None:
    """Let overrides of an older form, or under an older name, be called as today's."""
    refuse_uncalled_overrides(trainer)
    kinds = _outside(trainer)
    for name, point in POINTS.items():
        if not any(name in vars(kind) for kind in kinds):
            if any(point.once in vars(kind) for kind in kinds):
                _take_older_name(trainer, name, point)
        else:
            _take_older_form(trainer, name, point)
    _take_prediction_loop(trainer)
    _take_get_optimizers(trainer)
    if any("_maybe_log_save_evaluate" in vars(kind) for kind in kinds):
        trainer._save_checkpoint = partial(_saved_whole, trainer, trainer._save_checkpoint)


def _take_older_form(trainer: Any, name: str, point: Point) -> None:
    method = getattr(trainer, name)
    signature = inspect.signature(method)
    if fits(signature, point):
        return
    written = f"{type(trainer).__name__}.{name}({', '.join(signature.parameters)})"
    warn_where_written(method, f"{written} is an older form: write {name}(self, {point.today}).")
    _serve(trainer, name, point, method)
    counts = name != "compute_loss" or "num_items_in_batch" in signature.parameters
    if not counts and trainer.loss_is_scaled_for_ga is None:
        # It never sees the item count, so that its loss is a mean over the micro-batch.
        trainer.loss_is_scaled_for_ga = False


def _take_older_name(trainer: Any, name: str, point: Point) -> None:
    """Let an override under the method's older name be called, if it takes what it took then."""
    method = getattr(trainer, point.once)
    if tuple(inspect.signature(method).parameters) != point.once_took:
        return
    warn_where_written(
        method, f"{type(trainer).__name__}.{point.once} is an older name: write {name}(self, {point.today})."
    )
    _serve(trainer, name, point, method)


def _serve(trainer: Any, name: str, point: Point, method: Callable[..., Any]) -> None:
    """Put a method of today's form before an older one."""
    base = getattr(_base(trainer), name)
    static = isinstance(inspect.getattr_static(_base(trainer), name), staticmethod)
    today = inspect.signature(base if static else partial(base, trainer))
    form = OldForm(trainer, name, point, method, inspect.signature(method), today)
    setattr(trainer, name, partial(_AROUND.get(name, _call), form))


def _base(trainer: Any) -> type:
    """Return the class of this package that a trainer comes from."""
    return next(kind for kind in type(trainer).__mro__ if kind.__module__.startswith("surestep."))


@dataclass(frozen=True)
class OldForm:
    """A method of an older form, beside the call that today's trainer makes."""

    trainer: Any
    name: str
    point: Point
    method: Callable[..., Any]
    signature: inspect.Signature
    today: inspect.Signature


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _call(form: OldForm, *args: Any, **kwargs: Any) -> Any:
    """Make today's call on a method of an older form: by name where its names are known, else by position."""
    values = form.today.bind(*args, **kwargs).arguments
    for name, make in form.point.supply.items():
        if name in form.signature.parameters:
            values[name] = make(form.trainer)
    parameters = form.signature.parameters
    required = {name for name, one in parameters.items() if one.default is one.empty and one.kind in _POSITIONAL}
    if required <= values.keys():
        known = {name: value for name, value in values.items() if name in parameters}
        _refuse_loss(form, {name: value for name, value in values.items() if name not in parameters})
        return form.method(**known)
    room = sum(one.kind in _POSITIONAL for one in parameters.values())
    _refuse_loss(form, dict(list(values.items())[room:]))
    return form.method(*list(values.values())[:room])


def _refuse_loss(form: OldForm, left_out: dict[str, Any]) -> None:
    """Raise where a value that matters would not reach the older form."""
    for name, value in left_out.items():
        if name not in form.point.spare and value is not None and value != form.today.parameters[name].default:
            raise ArgumentError(
                f"{type(form.trainer).__name__}.{form.name} has no parameter {name}, which is {value!r} here. Write "
                f"{form.name}(self, {form.point.today})."
            )


def _loss_with_outputs(form: OldForm, model: Any, inputs: Any, *args: Any, **given: Any) -> Any:
    """Serve `return_outputs` for a loss of the 3.x years, which has none: the model runs once more, as it did then."""
    wanted = args[0] if args else given.get("return_outputs", False)
    if not wanted or "return_outputs" in form.signature.parameters:
        return _call(form, model, inputs, *args, **given)
    # An older loss may take its labels out of the batch.
    loss = _call(form, model, dict(inputs), *args, **given)
    return loss, model(**inputs)


class _DividingBackward:
    """The accelerator as it was up to 4.45: its backward divides by the micro-batches of a step."""

    def __init__(self, accelerator: Any, micro_batches: int) -> None:
        self._accelerator = accelerator
        self._micro_batches = micro_batches

    def backward(self, loss: Any, **kwargs: Any) -> None:
        self._accelerator.backward(loss / self._micro_batches, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._accelerator, name)


def _step_with_divided_backward(form: OldForm, *args: Any, **kwargs: Any) -> Any:
    import torch

    trainer, accelerator = form.trainer, form.trainer.accelerator
    trainer.accelerator = _DividingBackward(accelerator, trainer.current_gradient_accumulation_steps)
    try:
        # The oldest returned a number.
        return torch.as_tensor(_call(form, *args, **kwargs))
    finally:
        trainer.accelerator = accelerator


def _values_with_batch_size(form: OldForm, *args: Any, **kwargs: Any) -> Any:
    """Return the seven values of today: up to 5.2 the fifth said whether epochs decide."""
    values = _call(form, *args, **kwargs)
    return (*values[:4], form.trainer.get_total_train_batch_size(form.trainer.args), *values[5:])


_AROUND: dict[str, Callable[..., Any]] = {
    "compute_loss": _loss_with_outputs,
    "training_step": _step_with_divided_backward,
    "set_initial_training_values": _values_with_batch_size,
}


def _take_prediction_loop(trainer: Any) -> None:
    """Let an override of `prediction_loop` be the evaluation loop, unless that is overridden as well."""
    kinds = _outside(trainer)
    names = [name for name in ("prediction_loop", "_prediction_loop") if any(name in vars(kind) for kind in kinds)]
    if not names or any("evaluation_loop" in vars(kind) for kind in kinds):
        return
    # Up to 4.1 there was one prefix.
    point = replace(POINTS["evaluation_loop"], spare=frozenset({"metric_key_prefix"}))
    method, kind = getattr(trainer, names[0]), type(trainer).__name__
    warn_where_written(method, f"{kind}.{names[0]} is an older name: write evaluation_loop(self, {point.today}).")
    _serve(trainer, "evaluation_loop", point, method)
    named = "metric_key_prefix" in inspect.signature(method).parameters
    trainer.evaluation_loop = partial(_older_loop, trainer, trainer.evaluation_loop, named)


def _older_loop(
    trainer: Any,
    loop: Callable[..., Any],
    named: bool,
    dataloader: Any,
    description: str,
    prediction_loss_only: bool | None = None,
    ignore_keys: list[str] | None = None,
    metric_key_prefix: str = "eval",
) -> Any:
    """Return what an older loop gave, with the number of samples, and with the prefix where it knows of none."""
    from surestep.metrics.prediction import EvalLoopOutput

    predictions, labels, metrics = loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)[
        :3
    ]
    if not named:
        metrics = {f"{metric_key_prefix}_{name.removeprefix('eval_')}": value for name, value in metrics.items()}
    return EvalLoopOutput(predictions, labels, metrics, trainer.num_examples(dataloader))


def _take_get_optimizers(trainer: Any) -> None:
    """Let an override of `get_optimizers`, which returned both, make optimizer and schedule."""
    method = trainer.get_optimizers
    defined = any("get_optimizers" in vars(kind) for kind in _outside(trainer))
    if not defined or tuple(inspect.signature(method).parameters) != ("num_training_steps",):
        return
    today = "create_optimizer_and_scheduler(self, num_training_steps)"
    warn_where_written(method, f"{type(trainer).__name__}.get_optimizers is an older name: write {today}.")
    trainer.create_optimizer_and_scheduler = method


def _saved_whole(trainer: Any, save: Callable[..., Any], model: Any, trial: Any, metrics: Any = None) -> None:
    """Serve an answer to requests that saves by itself: whole, and with the metric by which it is the best or not."""
    if trainer._staging_root is not None:
        save(model, trial)
        return
    if metrics is not None:
        trainer._determine_best_metric(metrics=metrics, trial=trial)
    trainer._save_whole(model, trial)


# Calls of an older form on this package's own methods


def older_calls(translate: Callable[..., tuple[Any, ...] | None]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a method be called with the arguments of older versions: `translate` returns today's, or None."""

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def run(self: Any, *args: Any, **kwargs: Any) -> Any:
            today = None if kwargs else translate(self, *args)
            return method(self, *(args if today is None else today), **kwargs)

        return run

    return decorate


def serving_arguments(_: Any, *args: Any) -> tuple[Any, ...] | None:
    """Return today's arguments of `_maybe_log_save_evaluate` for a call of up to 4.45, by their number."""
    if len(args) in {4, 5}:  # tr_loss, model, trial, epoch and perhaps ignore_keys_for_eval
        return (args[0], None, *args[1:4], args[4] if len(args) > 4 else None, None)
    return (*args, None) if len(args) == 6 else None


def values_arguments(_: Any, *args: Any) -> tuple[Any, ...] | None:
    """Return today's arguments of `set_initial_training_values` for a call of up to 5.2, which had the batch size."""
    return args[:2] if len(args) == 3 else None
