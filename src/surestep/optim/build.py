"""From a name to an optimizer: a table of recipes, and the one place that calls the constructor."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from surestep.errors import ArgumentError
from surestep.optim.catalogue.packages import PACKAGES
from surestep.optim.catalogue.projectors import keep_projectors_as_data
from surestep.optim.catalogue.torch_native import TORCH_NATIVE
from surestep.optim.groups import ParameterGroup
from surestep.optim.recipe import Recipe, Settings
from surestep.optional import require

RECIPES: Mapping[str, Recipe] = {**TORCH_NATIVE, **PACKAGES}
# What an optimizer's keyword arguments may hold in the place of the groups, as in the original.
_IN_PLACE_OF_GROUPS = ("params", "model", "optimizer_dict")


def optimizer_class_and_kwargs(
    name: str,
    *,
    learning_rate: float,
    adam_beta1: float = 0.9,
    adam_beta2: float = 0.999,
    adam_epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    warmup_steps: int = 0,
    optim_args: str | None = None,
    optim_target_modules: str | Sequence[str] | None = None,
    model: nn.Module | None = None,
    groups: list[ParameterGroup] | None = None,
) -> tuple[type[Optimizer], dict[str, Any]]:
    """Return the class of the optimizer `name` and its keyword arguments, with the original's defaults.

    Optimizers that treat some parameters apart (GaLore, APOLLO, Muon) need `model` and put groups of their own under
    `params`: `groups` divided further where it is given, those of the original otherwise. LOMO has the model itself
    under `model`. `build_optimizer` knows both. `warmup_steps` is for schedule-free optimizers.

    Raises:
        ArgumentError: An unknown name, or `optim_args` or target modules that do not fit it.
        MissingPackageError: The optimizer is in a package that is not installed.
    """
    if name not in RECIPES:
        raise ArgumentError(f"optim is '{name}'. Did you mean {_near(name)}? All names: {', '.join(RECIPES)}.")
    settings = Settings(
        learning_rate=learning_rate,
        adam_beta1=adam_beta1,
        adam_beta2=adam_beta2,
        adam_epsilon=adam_epsilon,
        weight_decay=weight_decay,
        warmup_steps=warmup_steps,
        target_modules=optim_target_modules,
        model=model,
        groups=groups,
    )
    recipe = RECIPES[name]
    return recipe.load(), recipe.arguments(name, settings, optim_args)


def _near(name: str) -> str:
    longer = [known for known in RECIPES if name and name in known]
    return ", ".join(longer[:3] or difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.4) or ["adamw_torch"])


def updates_in_backward(name: str) -> bool:
    """Say whether the optimizer `name` updates during backward, so that gradients cannot be clipped or accumulated."""
    return RECIPES[name].in_backward


def is_optimizer_factory(candidate: Any) -> bool:
    """Say whether `candidate` is no class of optimizers, but a class whose instances make one from a model."""
    return not (isinstance(candidate, type) and issubclass(candidate, Optimizer))


def takes_groups(cls: Any, kwargs: Mapping[str, Any]) -> bool:
    """Say whether `build_optimizer` would use the groups that it is given: no factory, and none in their place."""
    return not is_optimizer_factory(cls) and not any(key in kwargs for key in _IN_PLACE_OF_GROUPS)


def build_optimizer(
    cls: Callable[..., Any], kwargs: Mapping[str, Any], model: nn.Module, groups: list[ParameterGroup]
) -> Optimizer:
    """Return the optimizer of `model` from what `optimizer_class_and_kwargs`, or an override of it, returned.

    A factory is called as `cls()(model, **kwargs)`. Otherwise the class gets what `kwargs` has under `params`,
    `model` or `optimizer_dict`, or `groups` if there is none of them.
    """
    options = dict(kwargs)
    if is_optimizer_factory(cls):
        made: Optimizer = cls()(model, **options)
        return made
    subject: Any = groups
    for key in _IN_PLACE_OF_GROUPS:
        subject = options.pop(key, subject)
    optimizer: Optimizer = cls(subject, **options)
    keep_projectors_as_data(optimizer, options.get("inner", cls))
    if options.get("optim_bits") == 8 and "bitsandbytes" in str(cls):
        _keep_embeddings_in_32_bits(model)
    return optimizer


def _keep_embeddings_in_32_bits(model: nn.Module) -> None:
    """Keep the state of embeddings in 32 bits: bitsandbytes finds training unstable otherwise."""
    manager = require("bitsandbytes", "An optimizer in 8 bits").optim.GlobalOptimManager.get_instance()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            manager.register_module_override(module, "weight", {"optim_bits": 32})
