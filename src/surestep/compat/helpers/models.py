"""Questions about models and functions, under the original's names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from surestep.data.columns import inspected_model
from surestep.optim.targets import is_target
from surestep.trainer.quantised import check_quantised

validate_quantization_for_training = check_quantised


def get_parameter_names(
    model: nn.Module,
    forbidden_layer_types: Sequence[type[nn.Module]],
    forbidden_layer_names: Sequence[str] | None = None,
) -> list[str]:
    """Return the names of the parameters outside modules of the forbidden types, children's before a module's own.

    `forbidden_layer_names` are regular expressions; a parameter is left out where one is found in its name, in lower
    case, seen from any module above it.
    """
    patterns = [re.compile(pattern) for pattern in forbidden_layer_names or ()]

    def allowed(name: str) -> bool:
        return not any(pattern.search(name.lower()) for pattern in patterns)

    below = [
        f"{prefix}.{name}"
        for prefix, child in model.named_children()
        if not isinstance(child, tuple(forbidden_layer_types))
        for name in get_parameter_names(child, forbidden_layer_types, forbidden_layer_names)
    ]
    return [name for name in (*below, *model._parameters) if allowed(name)]


def get_model_param_count(model: nn.Module, trainable_only: bool = False) -> int:
    """Count the numbers in a model's parameters; what ZeRO-3 has spread over ranks counts as a whole."""
    parameters = [one for one in model.parameters() if one.requires_grad or not trainable_only]
    return sum(getattr(one, "ds_numel", None) or one.numel() for one in parameters)


def get_module_class_from_name(module: nn.Module, name: str) -> type[nn.Module] | None:
    """Return the class called `name` of `module` or of the first module inside it; None where there is none."""
    return next((type(one) for one in module.modules() if type(one).__name__ == name), None)


def _is_peft_model(model: Any) -> bool:
    """Say whether adapters of PEFT wrap the model."""
    return any(base.__module__.partition(".")[0] == "peft" for base in type(model).__mro__)


def unwrap_peft_model(model: Any) -> Any:
    """Return the model under PEFT's adapters; one without adapters as it is."""
    return inspected_model(model) if _is_peft_model(model) else model


def check_target_module_exists(
    optim_target_modules: str | Sequence[str], key: str, return_is_regex: bool = False
) -> bool | tuple[bool, bool]:
    """Say whether `optim_target_modules` names the module `key`, and with `return_is_regex` whether by expression."""
    if isinstance(optim_target_modules, str):
        found = re.fullmatch(optim_target_modules, key) is not None
        by_expression = optim_target_modules != key
    else:
        found = is_target(key, optim_target_modules)
        by_expression = found and not any(target in key for target in optim_target_modules)
    return (found, by_expression) if return_is_regex else found


def number_of_arguments(func: Callable[..., Any]) -> int:
    """Return how many arguments a function takes, those that a `partial` has filled in left out."""
    if isinstance(func, partial):
        return len(inspect.signature(func.func).parameters) - len(func.args) - len(func.keywords)
    return len(inspect.signature(func).parameters)


def is_attention_mask_causal(attention_mask: torch.Tensor | None) -> bool:
    """Say whether a mask lets no position see a later one: None and padding masks do, and lower triangles.

    Of a mask with a matrix for each sample (3 dimensions) or each head (4) the first matrix is looked at.
    """
    if attention_mask is None or attention_mask.dim() == 2:
        return True
    if attention_mask.dim() not in (3, 4):
        return False
    first = attention_mask.flatten(0, -3)[0]
    above = torch.triu(first, diagonal=1)
    return first.shape[-1] <= 1 or bool((above <= 1e-6).all())
