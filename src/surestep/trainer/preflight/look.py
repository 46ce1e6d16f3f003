"""What can be seen of a batch, a step or a set of metrics without knowing the model."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from surestep.losses.shift import IGNORED


def describe(batch: Any) -> str:
    """Return the tensors of a batch with their shapes and dtypes."""
    if not isinstance(batch, Mapping):
        return type(batch).__name__
    return ", ".join(f"{name} {_form(value)}" for name, value in batch.items())


def _form(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"


def inputs_of(batch: Any, model: nn.Module) -> Iterator[str]:
    """Yield what is wrong with the inputs of a batch."""
    if batch is None:
        yield "The data_collator returns nothing. Let it return the batch it makes."
    if not isinstance(batch, Mapping):
        return
    for name, value in batch.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not bool(torch.isfinite(value).all()):
            yield (
                f"'{name}' has values that are NaN or infinite in the first batch. Fill gaps and divide by no zero "
                "when the data is prepared."
            )
    yield from _tokens(batch, model)


def _tokens(batch: Mapping[str, Any], model: nn.Module) -> Iterator[str]:
    name = getattr(model, "main_input_name", "input_ids")
    tokens, table = batch.get(name), _embeddings(model)
    if not isinstance(tokens, Tensor) or tokens.is_floating_point() or table is None or not tokens.numel():
        return
    largest, known = int(tokens.max()), table.num_embeddings
    if largest >= known or int(tokens.min()) < 0:
        yield (
            f"'{name}' has the token {largest if largest >= known else int(tokens.min())}, and the model knows 0 to "
            f"{known - 1}. Use the model's own tokenizer, or call model.resize_token_embeddings(len(tokenizer))."
        )


def _embeddings(model: nn.Module) -> nn.Embedding | None:
    find = getattr(model, "get_input_embeddings", None)
    try:
        table = find() if callable(find) else None
    except (NotImplementedError, AttributeError):
        return None
    return table if isinstance(table, nn.Embedding) else None


def labels_of(batch: Any, model: nn.Module) -> Iterator[str]:
    """Yield what is wrong with the labels of a batch."""
    counted = _counted_labels(batch)
    if counted is not None and not counted.numel():
        yield (
            "Every label of the first batch is -100, which losses ignore: nothing would be learned. Look at what makes "
            "the labels (a mask that covers all, a truncation that cuts the answer off)."
        )
    yield from strange_labels(batch, model)


def strange_labels(batch: Any, model: nn.Module) -> Iterator[str]:
    """Yield what is wrong where a batch has a label that is no class of the model."""
    counted, classes = _counted_labels(batch), classes_of(model)
    if counted is None or not counted.numel() or not classes:
        return
    yield from beyond_classes(int(counted.min()), int(counted.max()), classes)


def beyond_classes(smallest: int, largest: int, classes: int) -> Iterator[str]:
    """Yield what to do where the labels from `smallest` to `largest` are not all classes of the model."""
    if smallest < 0 or largest >= classes:
        more = f", make the model with num_labels={largest + 1}" if largest >= classes else ""
        yield (
            f"A label is {smallest if smallest < 0 else largest}, and the model has the classes 0 to {classes - 1}. "
            f"Count classes from 0{more}, and mark what is to be ignored with -100."
        )


def _counted_labels(batch: Any) -> Tensor | None:
    """Return the labels of a batch that are not -100; None where they are no whole numbers."""
    labels = batch.get("labels") if isinstance(batch, Mapping) else None
    if not isinstance(labels, Tensor) or labels.is_floating_point() or not labels.numel():
        return None
    return labels[labels != IGNORED]


def classes_of(model: nn.Module) -> int:
    """Return how many classes the model's configuration tells, where it is one that classifies; else 0."""
    config = getattr(model, "config", None)
    problem = getattr(config, "problem_type", None)
    if config is None or problem not in (None, "single_label_classification"):
        return 0
    if not type(model).__name__.endswith(
        ("ForSequenceClassification", "ForTokenClassification", "ForImageClassification")
    ):
        return 0
    count = int(getattr(config, "num_labels", 0) or 0)
    return count if count > 1 else 0


def loss_of_step(loss: float) -> Iterator[str]:
    """Yield what is wrong with the loss of a step."""
    if not math.isfinite(loss):
        yield (
            f"The loss of the first step is {loss}. Look for empty or unscaled inputs, a logarithm of zero, labels "
            "that are all ignored, or weights that are not finite; fp16 overflows where bf16 does not."
        )


def without_gradient(model: nn.Module) -> str:
    """Return which parameters are to be trained and have no gradient, as a figure: some models have such."""
    named = [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]
    return f", no gradient for {_few(named)}" if named else ""


def gradients_of(model: nn.Module, *, may_overflow: bool) -> Iterator[str]:
    """Yield what is wrong with the gradients of a step."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    without = [name for name, parameter in trained.items() if parameter.grad is None]
    if len(without) == len(trained):
        yield (
            "No parameter has a gradient after backward: the loss does not hang on the model that is trained. Compute "
            "it from this model's outputs."
        )
        return
    grads = {name: parameter.grad for name, parameter in trained.items() if parameter.grad is not None}
    broken = [name for name, grad in grads.items() if not bool(torch.isfinite(grad).all())]
    if broken and not may_overflow:
        yield (
            f"The gradient of {_few(broken)} is not finite while the loss is. A square root, norm or division at zero "
            "does that: add a small number inside it."
        )
    elif not any(bool(grad.any()) for grad in grads.values()):
        yield (
            "Every gradient is zero: the loss does not change with the weights. Look for argmax, rounding or a "
            "comparison between the model and its loss, or a dead activation."
        )


def optimizer_of(model: nn.Module, optimizer: Any) -> Iterator[str]:
    """Yield what is wrong with what the optimizer updates, and how fast."""
    yield from parameters_of(model, optimizer)
    if all(
        float(group["lr"]) == 0.0 and float(group.get("initial_lr", 0.0)) == 0.0 for group in optimizer.param_groups
    ):
        yield "Every learning rate is 0, so nothing is learned. Set learning_rate, for example 5e-5."


def parameters_of(model: nn.Module, optimizer: Any) -> Iterator[str]:
    """Yield that the optimizer updates nothing of the model, where it does not."""
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    strange = [name for name, parameter in trained.items() if id(parameter) not in known]
    if trained and len(strange) == len(trained):
        yield (
            "The optimizer holds none of the model's parameters: it was made for another model, or before this one was "
            "changed. Make it from trainer.model.parameters(), or leave it to the trainer (optim)."
        )


def metrics_of(metrics: Mapping[str, Any], wanted: Mapping[str, str], label_names: list[str]) -> Iterator[str]:
    """Yield what is wrong with the figures of an evaluation; `wanted` has those that settings name."""
    if not metrics:
        names = ", ".join(f"'{name}'" for name in label_names) or "labels"
        yield (
            f"The evaluation gives neither a loss nor a figure: its batches lack {names}. Name the column of the "
            "labels so, or set label_names to what yours are called."
        )
    for name, value in metrics.items():
        if not isinstance(value, numbers.Number):
            yield (
                f"'{name}' of the evaluation is a {type(value).__name__}, and figures are numbers. Return "
                "float(value), or one figure for each of its parts."
            )
        elif isinstance(value, float) and math.isnan(value):
            yield (
                f"'{name}' is NaN on the first evaluation batch. Look for a division by the number of something that "
                "may be absent."
            )
    names = ", ".join(name.removeprefix("eval_") for name in metrics if not name.endswith(("_runtime", "_per_second")))
    for key, setting in wanted.items():
        if key not in metrics and not key.endswith(("_runtime", "_per_second")):
            yield (
                f"{setting}, but the evaluation gives {names or 'nothing'}. Name one of these, or let compute_metrics "
                "return it."
            )


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
