"""What must hold between the arguments and the objects of a trainer, looked at before any work."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surestep.config.enums import IntervalStrategy, OptimizerNames, SaveStrategy
from surestep.data.loaders import has_length
from surestep.errors import ArgumentError, ModelError

if TYPE_CHECKING:
    from surestep.config.arguments import TrainingArguments
    from surestep.trainer.trainer import Trainer


def check_objects(trainer: Trainer, model: Any) -> None:
    """Raise `ArgumentError` for the first pair of objects or settings that cannot be right together."""
    for problem in (*_models(trainer, model), *_updates(trainer), *_evaluations(trainer), *_data(trainer)):
        raise ArgumentError(problem)


def _models(trainer: Trainer, model: Any) -> Iterator[str]:
    if model is None and trainer.model_init is None:
        yield "Trainer needs a model: pass model, or model_init, a function that makes one."
    elif model is not None and trainer.model_init is not None:
        yield "Trainer got both model and model_init. Pass one of them."
    elif isinstance(model, type):
        yield f"model is the class {model.__name__}. Pass an instance: {model.__name__}(...)."
    elif model is not None and not hasattr(model, "parameters"):
        yield f"model is a {type(model).__name__}, which has no parameters. Pass a torch.nn.Module."
    elif model is not None and getattr(model, "hf_device_map", None) is None:
        yield from _weightless(model)


def _weightless(model: Any) -> Iterator[str]:
    for name, parameter in model.named_parameters():
        if getattr(parameter, "is_meta", False):
            yield (
                f"The model's '{name}' is on the meta device, where nothing has values. Load or make the weights "
                "first: from_pretrained, or model.to_empty(device='cpu') and load_state_dict."
            )
            return


def check_pair(optimizers: Any) -> tuple[Any, Any]:
    """Return `optimizers`, or raise `ArgumentError` where it is no pair of an optimizer and a schedule."""
    if not isinstance(optimizers, tuple | list) or len(optimizers) != 2:
        raise ArgumentError(
            f"optimizers is of type {type(optimizers).__name__}. Pass a pair: optimizers=(optimizer, schedule), with "
            "None for what the trainer is to make."
        )
    return optimizers[0], optimizers[1]


def _updates(trainer: Trainer) -> Iterator[str]:
    given = trainer.optimizer is not None
    if not given and trainer.lr_scheduler is not None and trainer.model_init is None:
        yield "optimizers has a schedule and no optimizer. Pass the optimizer that the schedule was made for as well."
    for name in ("parameter_rules", "layerwise_lr_decay"):
        if given and getattr(trainer.args, name):
            yield f"{name} has no effect on an optimizer in optimizers, which has its groups. Pass one of the two."
    if not given and trainer.optimizer_cls_and_kwargs is None:
        yield from _updates_in_backward(trainer.args)
    if given and trainer.optimizer_cls_and_kwargs is not None:
        yield "Trainer got both optimizers and optimizer_cls_and_kwargs. Pass one of them."
    if trainer.model_init is not None and (given or trainer.lr_scheduler is not None):
        yield (
            "model_init makes a new model for each run, which the optimizer in optimizers would not know. Pass "
            "optimizer_cls_and_kwargs, or override create_optimizer."
        )


def _updates_in_backward(args: TrainingArguments) -> Iterator[str]:
    """Yield what goes with no optimizer that has used up each gradient when backward ends."""
    if args.gradient_accumulation_steps == 1 and not args.fp16:
        return
    from surestep.optim.build import updates_in_backward

    name = OptimizerNames(args.optim).value
    if not updates_in_backward(name):
        return
    if args.gradient_accumulation_steps > 1:
        yield (
            f"optim is '{name}', which updates during backward, and gradient_accumulation_steps is "
            f"{args.gradient_accumulation_steps}. Set it to 1, and per_device_train_batch_size higher."
        )
    if args.fp16:
        yield f"optim is '{name}', which updates during backward, before a loss scale could be undone. Set bf16=True."


def _evaluations(trainer: Trainer) -> Iterator[str]:
    args = trainer.args
    strategy = IntervalStrategy(args.eval_strategy)
    evaluates = strategy != IntervalStrategy.NO
    if evaluates and trainer.eval_dataset is None:
        yield (
            f"eval_strategy is '{strategy.value}', but eval_dataset is None. Pass an eval_dataset, or set "
            "eval_strategy='no'."
        )
    yield from _functions(trainer)
    if args.batch_eval_metrics and trainer.compute_metrics is not None and not _takes_result(trainer.compute_metrics):
        yield (
            "batch_eval_metrics is True, so compute_metrics is called for each batch with compute_result=<whether it "
            "is the last>, which yours does not take. Add the argument compute_result."
        )
    name = args.metric_for_best_model
    needs = args.load_best_model_at_end or args.save_strategy == SaveStrategy.BEST
    if needs and name is None and not args.track_best:
        yield "save_strategy is 'best', but metric_for_best_model is None. Name the metric that decides."
    if needs and not evaluates:
        yield "The best model is asked for, but eval_strategy is 'no', so nothing tells it. Set eval_strategy."
    if needs and evaluates and name is not None and _only_a_loss(trainer) and not _is_loss(name):
        yield (
            f"metric_for_best_model is '{name}', but there is no compute_metrics, so evaluations give the loss only. "
            "Pass metrics or compute_metrics, or set metric_for_best_model='loss'."
        )


# What functions of the user's are called with.
_CALLED_WITH = {
    "compute_metrics": (1, "of one argument, an EvalPrediction (its predictions and label_ids); it returns a dict"),
    "compute_loss_func": (2, "of the model's outputs and the labels"),
    "preprocess_logits_for_metrics": (2, "of logits and labels; it returns what metrics are to see"),
}


def _functions(trainer: Trainer) -> Iterator[str]:
    """Yield what is wrong with how functions of the user's want to be called, where that can be told."""
    for name, (count, what) in _CALLED_WITH.items():
        function = getattr(trainer, name)
        if function is None:
            continue
        if not callable(function):
            yield f"{name} is a {type(function).__name__}. Pass a function {what}."
            continue
        try:
            signature = inspect.signature(getattr(function, "forward", function))
        except (TypeError, ValueError):
            continue
        if not _takes(signature, count):
            yield f"{name} takes {signature}. Pass a function {what}."


def _takes(signature: inspect.Signature, count: int) -> bool:
    """Say whether a function can be called with so many arguments, and with those that it may name besides."""
    further = {name: None for name in ("compute_result", "num_items_in_batch") if name in signature.parameters}
    try:
        signature.bind(*[None] * count, **further)
    except TypeError:
        return False
    return True


def missing_figure(setting: str, key: str, metrics: Mapping[str, Any]) -> str:
    """Return what to say where no evaluation gives a figure that a setting names."""
    return (
        f"{setting}, but no evaluation gives '{key}'; it gives {', '.join(metrics) or 'nothing'}. "
        "Name one of these, or let compute_metrics return it."
    )


def _only_a_loss(trainer: Trainer) -> bool:
    """Say whether nothing but the trainer's own loss can come of an evaluation: no metric, and nothing overridden."""
    from surestep.trainer.points.evaluating import EvaluatingPoints

    kind = type(trainer)
    own = kind.evaluate is EvaluatingPoints.evaluate and kind.evaluation_loop is EvaluatingPoints.evaluation_loop
    measured = trainer.compute_metrics is not None or (
        trainer._measures is not None and trainer._measures.metrics is not None
    )
    return own and not measured


def _is_loss(name: str) -> bool:
    return name.endswith(("loss", "_runtime", "_per_second"))


def _data(trainer: Trainer) -> Iterator[str]:
    args, train = trainer.args, trainer.train_dataset
    if train is not None and not has_length(train) and args.max_steps <= 0:
        yield (
            f"train_dataset has no length and max_steps is {args.max_steps}, so nothing tells when to stop. Set "
            "max_steps."
        )
    if not callable(trainer.data_collator):
        yield (
            f"data_collator is a {type(trainer.data_collator).__name__}, which cannot be called. Pass a function of a "
            "list of samples that returns a batch."
        )


def _takes_result(function: Any) -> bool:
    parameters = inspect.signature(function).parameters
    return "compute_result" in parameters or any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()
    )


def takes_trial(model_init: Callable[..., Any]) -> bool:
    """Say whether `model_init` takes the trial of a search; it takes that or nothing."""
    parameters = inspect.signature(model_init).parameters.values()
    # Settings that go by keyword only are nobody's but the caller's own.
    count = sum(one.kind not in (one.KEYWORD_ONLY, one.VAR_KEYWORD) for one in parameters)
    if count > 1:
        raise ArgumentError(f"model_init takes {count} arguments. Let it take none, or one: the trial of a search.")
    return count == 1


def make_output_folder(folder: Path) -> None:
    """Make the folder that a run writes into, or raise `ArgumentError` where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = "is a file" if folder.is_file() else f"cannot be made ({error})"
        raise ArgumentError(f"output_dir='{folder}' {what}. Write a folder that can be written to.") from error


def check_present(model: Any) -> None:
    """Refuse a trainer whose model a search has let go of."""
    if model is None:
        raise ModelError(
            "The trainer has no model: the search has let go of those of its trials. Call train(), which makes one, or "
            "load a trial's from its folder, run-<number> in output_dir."
        )


def check_trainable(model: Any) -> None:
    """Refuse a model that has nothing to train."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ModelError(
            f"Every parameter of {type(model).__name__} is frozen (requires_grad=False), so there is nothing to train. "
            "Unfreeze some, or add an adapter."
        )
