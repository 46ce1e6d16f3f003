"""Parameter groups: who decays, who learns faster, who is frozen."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from surestep.errors import ArgumentError, ModelError

ParameterGroup = dict[str, Any]

_NO_DECAY = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
# Parts of a name that wrappers add and that no rule of a user mentions.
_WRAPPERS = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# A container of numbered layers, under the names that models give it.
LAYER_PATTERN = r"(?:^|\.)(?:layers?|h|blocks?|resblocks|stages?)\.(\d+)(?:\.|$)"


def clean_name(name: str) -> str:
    """Return a parameter's name without what compile, FSDP and activation checkpointing add to it."""
    return _WRAPPERS.sub("", name)


def decay_parameter_names(model: nn.Module) -> list[str]:
    """Return the names of the parameters that weight decay applies to: all but biases and norms.

    Left out are the parameters of `nn.LayerNorm` modules below the root and every name in which, in lower case, `bias`,
    `layernorm`, `rmsnorm`, a part `norm` or a part ending in `_norm` occurs. Children come before a module's own
    parameters. The rule and the order are those of the original.
    """
    return [name for name in _names_outside_layer_norms(model) if not _NO_DECAY.search(name.lower())]


def _names_outside_layer_norms(model: nn.Module) -> Iterator[str]:
    for prefix, child in model.named_children():
        if not isinstance(child, nn.LayerNorm):
            yield from (f"{prefix}.{name}" for name in _names_outside_layer_norms(child))
    yield from model._parameters


def default_groups(
    model: nn.Module, weight_decay: float, decayed: Collection[str] | None = None
) -> list[ParameterGroup]:
    """Return two groups, decayed and not decayed, as the original does; both are there even if empty.

    `decayed` names the parameters of the first group (default: `decay_parameter_names`).
    Only parameters on different device meshes change that: each mesh then has its own groups, because no fused kernel
    spans two meshes.

    Raises:
        ModelError: No parameter of `model` requires a gradient.
    """
    trainable = _trainable(model)
    names = set(decay_parameter_names(model) if decayed is None else decayed)
    groups: list[ParameterGroup] = [
        {"params": [parameter for name, parameter in trainable if name in names], "weight_decay": weight_decay},
        {"params": [parameter for name, parameter in trainable if name not in names], "weight_decay": 0.0},
    ]
    return _split_by_mesh(groups)


def _trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not named:
        total = sum(1 for _ in model.parameters())
        raise ModelError(
            f"{type(model).__name__} has {total} parameters and none requires a gradient: there is nothing to train. "
            "Unfreeze some with parameter.requires_grad_(True), or add an adapter."
        )
    return named


def _split_by_mesh(groups: list[ParameterGroup]) -> list[ParameterGroup]:
    """Give each device mesh its own groups; groups of plain tensors, or all on one mesh, stay as they are."""
    meshes = {getattr(parameter, "device_mesh", None) for group in groups for parameter in group["params"]}
    if len(meshes) < 2:
        return groups
    split = []
    for group in groups:
        by_mesh: dict[Any, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            by_mesh.setdefault(getattr(parameter, "device_mesh", None), []).append(parameter)
        split += [{**group, "params": parameters} for parameters in by_mesh.values()]
    return split


@dataclass(frozen=True)
class GroupRule:
    """What holds for the parameters whose name `pattern` is found in (`re.search`).

    `lr` is a learning rate, `lr_scale` a factor on the run's learning rate; one of them at most. `weight_decay`
    replaces the run's weight decay for those parameters that decay at all (biases and norms never do). `freeze` takes
    the parameters out of training.
    """

    pattern: str
    lr: float | None = None
    lr_scale: float | None = None
    weight_decay: float | None = None
    freeze: bool = False

    def __post_init__(self) -> None:
        if self.lr is not None and self.lr_scale is not None:
            raise ArgumentError(f"The rule '{self.pattern}' sets both lr and lr_scale. Write one of them.")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ArgumentError(f"The rule '{self.pattern}' is no regular expression: {error}.") from error

    @classmethod
    def of(cls, rule: GroupRule | tuple[str, Mapping[str, Any]]) -> GroupRule:
        """Return a rule from a rule or from a pair (pattern, options)."""
        if isinstance(rule, GroupRule):
            return rule
        pattern, options = rule
        known = {field.name for field in fields(cls)} - {"pattern"}
        if unknown := set(options) - known:
            raise ArgumentError(
                f"The rule '{pattern}' sets {', '.join(sorted(unknown))}; a rule takes {', '.join(sorted(known))}."
            )
        return cls(pattern, **options)

    def options(self, learning_rate: float | None) -> ParameterGroup:
        """Return what the rule adds to a group, beside its decay."""
        if self.lr is not None:
            return {"lr": self.lr}
        if self.lr_scale is None:
            return {}
        if learning_rate is None:
            raise ArgumentError(f"The rule '{self.pattern}' sets lr_scale, which needs the run's learning_rate.")
        return {"lr": learning_rate * self.lr_scale}


def pattern_groups(
    model: nn.Module,
    rules: Sequence[GroupRule | tuple[str, Mapping[str, Any]]],
    weight_decay: float,
    learning_rate: float | None = None,
    decayed: Collection[str] | None = None,
) -> list[ParameterGroup]:
    """Return groups by rules on parameter names; the first rule that matches a name holds for it.

    Parameters under no rule form the two default groups, which come first. Each rule then has a decayed and an
    undecayed group, those that are empty left out; their `name` is the rule's pattern. Frozen parameters are in no
    group and stop requiring gradients. `decayed` names the parameters that decay (default: `decay_parameter_names`).

    Raises:
        ArgumentError: A rule matches no trainable parameter, or only such as an earlier rule took.
        ModelError: Nothing is left to train.
    """
    parsed = [GroupRule.of(rule) for rule in rules]
    named = _trainable(model)
    taken = _assign(parsed, model)
    for name, parameter in named:
        if name in taken and taken[name].freeze:
            parameter.requires_grad_(False)
    decayed = set(decay_parameter_names(model) if decayed is None else decayed)
    groups = default_groups(model, weight_decay, decayed)
    for group in groups:
        group["params"] = _without(group["params"], [parameter for name, parameter in named if name in taken])
    for rule in parsed:
        mine = [(name, parameter) for name, parameter in named if taken.get(name) is rule and not rule.freeze]
        decay = weight_decay if rule.weight_decay is None else rule.weight_decay
        common = {"name": rule.pattern, **rule.options(learning_rate)}
        groups += _decay_pair(mine, decayed, decay, common)
    return _split_by_mesh(groups)


def _assign(rules: Sequence[GroupRule], model: nn.Module) -> dict[str, GroupRule]:
    """Map each name to the first rule that matches it; complain about a rule that got none."""
    every = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    trainable = [name for name, trained in every.items() if trained]
    taken: dict[str, GroupRule] = {}
    for rule in rules:
        # What a rule froze for an earlier optimizer stays its own.
        names = list(every) if rule.freeze else trainable
        matches = [name for name in names if re.search(rule.pattern, clean_name(name))]
        free = [name for name in matches if name not in taken]
        if not free:
            raise ArgumentError(_why_unmatched(rule, matches, names))
        taken.update(dict.fromkeys(free, rule))
    return taken


def _why_unmatched(rule: GroupRule, matches: Sequence[str], names: Sequence[str]) -> str:
    if matches:
        return f"The rule '{rule.pattern}' matches only parameters that an earlier rule takes ({matches[0]}, ...)."
    return f"The rule '{rule.pattern}' matches no trainable parameter. {nearby_names(rule.pattern, names)}"


def nearby_names(pattern: str, names: Sequence[str]) -> str:
    """Return the sentence that offers the `names` most like a pattern that matches none of them."""
    clean = [clean_name(name) for name in names]
    plain = re.sub(r"\\|[\^$*+?()\[\]|]", "", pattern)
    near = difflib.get_close_matches(plain, clean, n=3, cutoff=0.3) or clean[:3]
    return f"Parameters nearby: {', '.join(near)}."


def _without(parameters: Sequence[nn.Parameter], taken: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    out = {id(parameter) for parameter in taken}
    return [parameter for parameter in parameters if id(parameter) not in out]


def _decay_pair(
    named: Sequence[tuple[str, nn.Parameter]], decayed: set[str], weight_decay: float, common: ParameterGroup
) -> list[ParameterGroup]:
    """Return the decayed and the undecayed group of `named`, without those that are empty."""
    pair = [
        {"params": [p for name, p in named if name in decayed], "weight_decay": weight_decay, **common},
        {"params": [p for name, p in named if name not in decayed], "weight_decay": 0.0, **common},
    ]
    return [group for group in pair if group["params"]]


def layerwise_groups(
    model: nn.Module,
    learning_rate: float,
    decay: float,
    *,
    weight_decay: float = 0.0,
    layer_pattern: str = LAYER_PATTERN,
    decayed: Collection[str] | None = None,
) -> list[ParameterGroup]:
    """Return groups whose learning rate falls by the factor `decay` per layer, from the head down to the embeddings.

    Of a stack of L numbered layers, layer i learns with `learning_rate * decay ** (L - i)`; what is defined before the
    first layer, and every embedding, with `decay ** (L + 1)`; what comes after, with `learning_rate` itself (ELECTRA,
    Clark et al. 2020). `layer_pattern` finds the layers: its first group is the number. Several stacks (encoder and
    decoder) count each from its own top. The head comes first, so that the rate of the first group, which logs show, is
    the run's. `decayed` names the parameters that decay (default: `decay_parameter_names`).

    Raises:
        ArgumentError: `decay` is not within (0, 1], or no parameter's name shows a numbered layer.
    """
    if not 0.0 < decay <= 1.0:
        raise ArgumentError(f"The layer-wise decay is {decay}; write a factor above 0 and at most 1, such as 0.9.")
    named = _trainable(model)
    below_head = _layers_below_head(model, re.compile(layer_pattern))
    decayed = set(decay_parameter_names(model) if decayed is None else decayed)
    groups = []
    for depth in sorted({below_head[name] for name, _ in named}):
        mine = [(name, parameter) for name, parameter in named if below_head[name] == depth]
        common = {"name": f"depth -{depth}", "lr": learning_rate * decay**depth}
        groups += _decay_pair(mine, decayed, weight_decay, common)
    return _split_by_mesh(groups)


def _layers_below_head(model: nn.Module, pattern: re.Pattern[str]) -> dict[str, int]:
    """Map each parameter's name to how many layers it lies below the head, which itself is at 0."""
    names = [name for name, _ in model.named_parameters()]
    found = {name: match for name in names if (match := pattern.search(clean_name(name)))}
    if not found:
        raise ArgumentError(
            f"No parameter of {type(model).__name__} lies in a numbered layer under the pattern '{pattern.pattern}'. "
            "Write rules on names instead, or call layerwise_groups with a layer_pattern whose first group is the "
            f"number; parameters are called {', '.join(names[:3])}, ..."
        )
    heights: dict[str, int] = {}
    for match in found.values():
        stack = match.string[: match.start(1)]
        heights[stack] = max(heights.get(stack, 0), int(match[1]) + 1)
    embeddings = _embedding_names(model)
    first = names.index(next(iter(found)))
    bottom = max(heights.values()) + 1
    depths = {name: bottom if place < first or name in embeddings else 0 for place, name in enumerate(names)}
    layers = {name: heights[match.string[: match.start(1)]] - int(match[1]) for name, match in found.items()}
    return depths | layers


def _embedding_names(model: nn.Module) -> set[str]:
    kinds = (nn.Embedding, nn.EmbeddingBag)
    modules = [(prefix, module) for prefix, module in model.named_modules() if isinstance(module, kinds)]
    return {f"{prefix}.{name}".lstrip(".") for prefix, module in modules for name, _ in module.named_parameters()}


def parameter_names(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[list[str]]:
    """Return, for each group of `optimizer`, the names of its parameters in `model`.

    A parameter that is not the model's is called `group<i>.<j>` after its place, so that every name is unique.
    """
    names = {id(parameter): clean_name(name) for name, parameter in model.named_parameters()}
    return [
        [names.get(id(parameter), f"group{i}.{j}") for j, parameter in enumerate(group["params"])]
        for i, group in enumerate(optimizer.param_groups)
    ]
