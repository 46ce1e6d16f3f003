"""Which parameters an optimizer treats apart: target modules, hidden matrices, and groups divided by them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from surestep.errors import ArgumentError
from surestep.logs import get_logger
from surestep.optim.groups import ParameterGroup, default_groups

_logger = get_logger(__name__)
# The last layer under the names that models give it.
_HEAD = re.compile(r"(?:^|\.)(?:lm_head|head|heads|classifier|score|qa_outputs|fc_out|logits)\.")


def target_weights(model: nn.Module, targets: str | Sequence[str]) -> list[nn.Parameter]:
    """Return the trainable weights of the linear layers that `targets` names, in the order of the model.

    A string is a regular expression for the whole name of a module, or 'all-linear'; of a list, each entry is a name, a
    part of a name, or such an expression. The rules are those of the original's `optim_target_modules`.

    Raises:
        ArgumentError: No linear layer is named.
    """
    named = [(name, module) for name, module in model.named_modules() if is_target(name, targets)]
    for name, module in named:
        if not isinstance(module, nn.Linear) and module._parameters and targets not in ("all-linear", "all_linear"):
            _logger.warning("optim_target_modules names %s, which is no linear layer and is left out", name)
    linear = {id(module.weight) for _, module in named if isinstance(module, nn.Linear)}
    weights = [parameter for parameter in model.parameters() if id(parameter) in linear and parameter.requires_grad]
    if not weights:
        known = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        raise ArgumentError(
            f"optim_target_modules={targets!r} names no trainable linear layer. Write 'all-linear', or names among: "
            f"{', '.join(known[:5]) or '(the model has none)'}."
        )
    return weights


def is_target(name: str, targets: str | Sequence[str]) -> bool:
    """Say whether `targets` names the module `name`."""
    if isinstance(targets, str):
        return targets in ("all-linear", "all_linear") or re.fullmatch(targets, name) is not None
    return any(target in name or re.fullmatch(target, name) for target in targets)


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Return the trainable matrices between the embeddings and the head, which Muon was made for.

    Left out are embeddings, the output embeddings of a language model, what is named like a head (`lm_head`,
    `classifier`, `score`, ...) and the last linear layer.
    """
    modules = list(model.modules())
    ends: list[nn.Module] = [module for module in modules if isinstance(module, (nn.Embedding, nn.EmbeddingBag))]
    ends += [module for module in modules if isinstance(module, nn.Linear)][-1:]
    output = getattr(model, "get_output_embeddings", lambda: None)()
    if isinstance(output, nn.Module):
        ends.append(output)
    excluded = {id(parameter) for module in ends for parameter in module.parameters()}
    return [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and parameter.requires_grad and id(parameter) not in excluded and not _is_end(name)
    ]


def _is_end(name: str) -> bool:
    return _HEAD.search(name) is not None or "embed" in name.lower()


def base_groups(model: nn.Module, groups: list[ParameterGroup] | None, weight_decay: float) -> list[ParameterGroup]:
    """Return the groups to divide: those given, or the default ones, which are a single one if nothing decays."""
    if groups is not None:
        return groups
    default = default_groups(model, weight_decay)
    if weight_decay:
        return default
    return [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]


def divide(
    groups: Sequence[ParameterGroup],
    members: Sequence[nn.Parameter],
    inside: Mapping[str, Any],
    outside: Mapping[str, Any],
) -> list[ParameterGroup]:
    """Divide each group into the parameters outside and inside `members`, add options to each, drop what is empty."""
    ids = {id(parameter) for parameter in members}
    divided = []
    for group in groups:
        for options, within in ((outside, False), (inside, True)):
            part = [parameter for parameter in group["params"] if (id(parameter) in ids) is within]
            if part:
                divided.append({**group, "params": part, **options})
    return divided
