"""The state of an optimizer by the names of the parameters, so that no order of groups or parameters matters."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.optim import Optimizer

from surestep.checkpoint.names import name_list
from surestep.errors import CheckpointError

Names = Mapping[int, str]
_STANDARD = {"state", "param_groups"}


@dataclass(frozen=True, slots=True)
class _Member:
    """A parameter in an optimizer: its name, and the number that the optimizer's state dict gives it."""

    name: str
    index: int
    parameter: torch.Tensor


def encode_optimizer(optimizer: Optimizer, names: Names) -> dict[str, Any]:
    """Return the optimizer's whole state as a tree for `write_tree`, each parameter by its name.

    The state comes from the optimizer's own `state_dict`, whose hooks are honoured. The tensors are the optimizer's
    own, not copies: write or copy them before the next step.

    Args:
        optimizer: any optimizer of torch's kind.
        names: the name of each parameter by its `id`, see `checkpoint.names.parameter_names`; a parameter without one
            is called by its place, as in `group0.1`.

    Raises:
        CheckpointError: two parameters have one name.
    """
    content = optimizer.state_dict()
    tree: dict[str, Any] = {"optimizer": type(inner_optimizer(optimizer)).__name__}
    groups = _standard_groups(optimizer, content)
    if groups is None:
        return tree | {"as_is": dict(content)}
    members = _members(optimizer, groups, names)
    by_index = {member.index: member for group in members for member in group}
    state = content["state"]
    return tree | {
        "parameters": {member.name: list(member.parameter.shape) for group in members for member in group},
        "state": {by_index[key].name: value for key, value in state.items() if key in by_index},
        "other_state": {key: value for key, value in state.items() if key not in by_index},
        "on_host": _on_host(by_index, state),
        "groups": [
            {key: value for key, value in group.items() if key not in {"params", "param_names"}}
            | {"params": [member.name for member in own]}
            for group, own in zip(groups, members, strict=True)
        ],
        "extra": {key: value for key, value in content.items() if key not in _STANDARD},
    }


def decode_optimizer(optimizer: Optimizer, names: Names, tree: Mapping[str, Any]) -> None:
    """Load a tree of `encode_optimizer` into `optimizer`, which goes on exactly as the saved one would have.

    Groups and parameters may come in another order; each keeps its own. Every tensor keeps its dtype and goes to where
    it was, beside its parameter or on the host. The optimizer takes over the tree's tensors.

    Raises:
        CheckpointError: the tree is another optimizer's, or is of other parameters or groups; the message names them.
    """
    _same_class(optimizer, tree)
    content = dict(tree["as_is"]) if "as_is" in tree else _state_dict(optimizer, names, tree)
    try:
        with _ExactLoading(optimizer, _hosted(optimizer, names, tree)):
            optimizer.load_state_dict(content)
    except (ValueError, LookupError, TypeError, RuntimeError, AttributeError) as error:
        raise CheckpointError(f"The optimizer did not take its saved state: {type(error).__name__}: {error}") from error


def inner_optimizer(optimizer: Any) -> Any:
    """Return the optimizer that holds the state, within any that wrap it."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    return optimizer


def _standard_groups(optimizer: Optimizer, content: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the groups of a state dict, or None where it is not laid out as torch's own is."""
    groups, state = content.get("param_groups"), content.get("state")
    if not isinstance(groups, list) or not isinstance(state, Mapping) or len(groups) != len(optimizer.param_groups):
        return None
    fits = all(
        isinstance(group.get("params"), list) and len(group["params"]) == len(live["params"])
        for group, live in zip(groups, optimizer.param_groups, strict=True)
    )
    return groups if fits else None


def _members(optimizer: Optimizer, groups: list[dict[str, Any]], names: Names) -> list[list[_Member]]:
    members = [
        [
            _Member(names.get(id(parameter), f"group{number}.{place}"), index, parameter)
            for place, (index, parameter) in enumerate(zip(group["params"], live["params"], strict=True))
        ]
        for number, (group, live) in enumerate(zip(groups, optimizer.param_groups, strict=True))
    ]
    counts = Counter(member.name for group in members for member in group)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise CheckpointError(
            f"The optimizer has several parameters of the name {name_list(twice)}. Names must differ."
        )
    return members


def _on_host(by_index: Mapping[int, _Member], state: Mapping[Any, Any]) -> dict[str, list[Any]]:
    """Name what an optimizer keeps on the host beside parameters that are on an accelerator, such as a step count."""
    return {
        by_index[index].name: [
            key for key, value in entry.items() if isinstance(value, torch.Tensor) and value.device.type == "cpu"
        ]
        for index, entry in state.items()
        if index in by_index and by_index[index].parameter.device.type != "cpu" and isinstance(entry, Mapping)
    }


def _same_class(optimizer: Optimizer, tree: Mapping[str, Any]) -> None:
    saved, live = tree.get("optimizer"), type(inner_optimizer(optimizer)).__name__
    if saved is not None and saved != live:
        raise CheckpointError(
            f"The checkpoint holds the state of {saved}, and this run uses {live}. Set optim to what the run was "
            "started with, or start again from the weights alone."
        )


def _live_members(optimizer: Optimizer, names: Names) -> list[list[_Member]]:
    """Number the parameters of an optimizer in their order, as torch's `load_state_dict` expects them."""
    numbers = iter(range(sum(len(group["params"]) for group in optimizer.param_groups)))
    groups = [{"params": [next(numbers) for _ in group["params"]]} for group in optimizer.param_groups]
    return _members(optimizer, groups, names)


def _state_dict(optimizer: Optimizer, names: Names, tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a saved tree as the state dict that this optimizer, with its own order of parameters, would have."""
    members = _live_members(optimizer, names)
    by_name = {member.name: member for group in members for member in group}
    try:
        _same_parameters(by_name, tree["parameters"])
        saved = _matched_groups(members, tree["groups"])
        state = {by_name[name].index: value for name, value in tree["state"].items()} | dict(tree["other_state"])
        extra = dict(tree["extra"])
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"The saved state of the optimizer is incomplete: {error!r}.") from error
    groups = [
        {key: _beside(value, live.get(key)) for key, value in group.items()} | {"params": [item.index for item in own]}
        for group, live, own in zip(saved, optimizer.param_groups, members, strict=True)
    ]
    return extra | {"state": state, "param_groups": groups}


def _same_parameters(live: Mapping[str, _Member], saved: Mapping[str, list[int]]) -> None:
    missing = [name for name in live if name not in saved]
    unexpected = [name for name in saved if name not in live]
    if missing or unexpected:
        parts = ["The saved state of the optimizer is of other parameters."]
        parts += [f"It lacks {name_list(missing, unexpected)}."] if missing else []
        parts += [f"The optimizer has no {name_list(unexpected, missing)}."] if unexpected else []
        raise CheckpointError(" ".join(parts))
    changed = [
        f"{name} (saved {tuple(shape)}, now {tuple(live[name].parameter.shape)})"
        for name, shape in saved.items()
        if list(live[name].parameter.shape) != list(shape)
    ]
    if changed:
        raise CheckpointError(
            f"The saved state of the optimizer is of parameters of other shapes: {name_list(changed)}. Resume with the "
            "model that the run had, or start again from the weights alone."
        )


def _matched_groups(members: list[list[_Member]], saved: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the saved groups in the order of the optimizer's own; each is known by the parameters in it."""
    waiting: dict[frozenset[str], list[Mapping[str, Any]]] = {}
    for group in saved:
        waiting.setdefault(frozenset(group["params"]), []).append(group)
    found = []
    for number, own in enumerate(members):
        same = waiting.get(frozenset(member.name for member in own))
        if not same:
            raise CheckpointError(
                f"The optimizer's group {number} ({name_list(member.name for member in own)}) is not one of the saved "
                "groups. Group the parameters as the run did that was saved (weight decay, layer rates, frozen layers)."
            )
        found.append(same.pop(0))
    if any(waiting.values()):
        raise CheckpointError(
            "The saved state of the optimizer has more groups than the optimizer. Group the parameters as the run did "
            "that was saved (weight decay, layer rates, frozen layers)."
        )
    return found


def _beside(value: Any, live: Any) -> Any:
    """Put a hyper-parameter that is a tensor where the optimizer's own is."""
    if isinstance(value, torch.Tensor) and isinstance(live, torch.Tensor):
        return value.to(live.device)
    return value


def _hosted(optimizer: Optimizer, names: Names, tree: Mapping[str, Any]) -> dict[int, set[Any]]:
    """Return the keys of what was on the host, by the number of the parameter; none for what was saved on a CPU."""
    on_host = tree.get("on_host", {})
    members = [member for group in _live_members(optimizer, names) for member in group] if on_host else []
    return {member.index: set(on_host[member.name]) for member in members if member.name in on_host}


class _ExactLoading:
    """Keeps torch's `load_state_dict` from changing values while it runs.

    Left alone, it casts floating-point state to the parameter's dtype, takes texts and arrays apart, and forgets where
    tensors were. The optimizer's own hooks run as always: what is kept is what the last of them hands to torch.
    """

    def __init__(self, optimizer: Optimizer, hosted: dict[int, set[Any]]) -> None:
        self._optimizer = inner_optimizer(optimizer)
        self._hosted = hosted
        self._given: dict[int, Any] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> None:
        if hasattr(self._optimizer, "_optimizer_load_state_dict_pre_hooks"):
            self._handles = [
                self._optimizer.register_load_state_dict_pre_hook(self._before),
                self._optimizer.register_load_state_dict_post_hook(self._after, prepend=True),
            ]

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _before(self, _: Optimizer, content: dict[str, Any]) -> dict[str, Any]:
        indices = [index for group in content["param_groups"] for index in group["params"]]
        self._given = {place: content["state"].get(index) for place, index in enumerate(indices)}
        return content | {"state": {key: _seal(value) for key, value in content["state"].items()}}

    def _after(self, optimizer: Optimizer) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state = cast("dict[Any, Any]", optimizer.state)
        for key, value in list(state.items()):
            state[key] = _unsealed(value)
        for place, parameter in enumerate(parameters):
            if self._given[place] is not None:
                places = _Places(parameter.device, self._hosted.get(place))
                state[parameter] = _exact(state[parameter], self._given[place], places)


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the tensors of a parameter's state belong: known by key, or left to torch where `hosted` is None."""

    device: torch.device
    hosted: set[Any] | None

    def of(self, key: object, loaded: torch.device) -> torch.device:
        if self.hosted is None:
            return loaded
        return torch.device("cpu") if key in self.hosted else self.device


def _exact(loaded: Any, given: Any, places: _Places, key: object = None) -> Any:
    """Return what was loaded with every tensor as it was given; what the optimizer itself converted stays."""
    if isinstance(loaded, torch.Tensor) and isinstance(given, torch.Tensor):
        device = places.of(key, loaded.device)
        return loaded if (loaded.dtype, loaded.device) == (given.dtype, device) else given.to(device)
    if isinstance(loaded, dict) and isinstance(given, dict):
        for inner in loaded.keys() & given.keys():
            loaded[inner] = _exact(loaded[inner], given[inner], places, inner)
        return OrderedDict(loaded) if isinstance(given, OrderedDict) else loaded
    if type(given) in _SEQUENCES and type(loaded) is type(given) and len(loaded) == len(given):
        return _like(given, [_exact(left, right, places) for left, right in zip(loaded, given, strict=True)])
    return loaded


class _Sealed:
    """A text, set or the like, which torch would take apart because it can be iterated over."""

    def __init__(self, value: object) -> None:
        self.value = value


_SEQUENCES = {list, tuple, deque}


def _like(sequence: Any, items: list[Any]) -> Any:
    """Return `items` in a sequence of the same type and length limit."""
    return deque(items, sequence.maxlen) if isinstance(sequence, deque) else type(sequence)(items)


def _seal(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _seal(item) for key, item in value.items()}
    if type(value) in _SEQUENCES:
        return _like(value, [_seal(item) for item in value])
    return _Sealed(value) if isinstance(value, Iterable) and not isinstance(value, torch.Tensor) else value


def _unsealed(value: Any) -> Any:
    if isinstance(value, _Sealed):
        return value.value
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = _unsealed(item)
    elif type(value) in _SEQUENCES:
        return _like(value, [_unsealed(item) for item in value])
    return value
