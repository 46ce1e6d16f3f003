"""What a table of optimizers is made of: a class, what the run gives it, and what `optim_args` may say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from surestep.errors import ArgumentError, MissingPackageError
from surestep.optim.groups import ParameterGroup
from surestep.optional import installed, require

Options = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What a run says about its optimizer. `warmup_steps` is counted in steps, no longer a share of the run."""

    learning_rate: float
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.0
    warmup_steps: int = 0
    target_modules: str | Sequence[str] | None = None
    model: nn.Module | None = field(default=None, repr=False)
    groups: list[ParameterGroup] | None = field(default=None, repr=False)

    @property
    def adam(self) -> Options:
        """The arguments that the family of Adam takes."""
        return {"betas": (self.adam_beta1, self.adam_beta2), "eps": self.adam_epsilon}

    def need_model(self, what: str) -> nn.Module:
        """Return the run's model, which `what` cannot do without."""
        if self.model is None:
            raise ArgumentError(
                f"The optimizer {what} treats some parameters apart and needs the model: write model=..."
            )
        return self.model


def truth(text: str) -> bool:
    """Read a yes or a no."""
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    return words[text.lower()]


def dtype(text: str) -> torch.dtype:
    """Read the name of a torch dtype, such as bfloat16."""
    found = getattr(torch, text.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype):
        raise ValueError(text)
    return found


# How each reader calls what it reads, for the error.
_KINDS: Mapping[Callable[[str], Any], str] = {
    float: "a number",
    int: "a whole number",
    truth: "true or false",
    dtype: "a torch dtype",
    str: "a word",
}
ABSENT = object()


@dataclass(frozen=True)
class Option:
    """One key of `optim_args`: how it is read, and its value when it is not given (`ABSENT`: none is passed)."""

    read: Callable[[str], Any]
    default: Any = ABSENT


def defaults_only(_settings: Settings) -> Options:
    """Give an optimizer nothing but its learning rate."""
    return {}


def adam(settings: Settings) -> Options:
    """Give an optimizer the betas and the epsilon of the run."""
    return settings.adam


def keep(_settings: Settings, arguments: Options) -> Options:
    """Leave the arguments as they are."""
    return arguments


@dataclass(frozen=True)
class Imported:
    """A class in a package that may not be installed."""

    module: str
    name: str
    source: str | None = None  # where to get a package that is on no index
    also: tuple[str, ...] = ()  # what the package imports without declaring it

    def __call__(self) -> type[Optimizer]:
        """Import the class, or raise and say what to install."""
        purpose = f"The optimizer {self.name} of {self.module}"
        if self.source is not None and not installed(self.module):
            raise MissingPackageError(f"{purpose} needs {self.module}, which is not installed. It is at {self.source}.")
        for other in self.also:
            require(other, purpose)
        found: type[Optimizer] = getattr(require(self.module, purpose), self.name)
        return found


@dataclass(frozen=True)
class Recipe:
    """How a named optimizer is made: `load` gives the class; the keyword arguments are the learning rate, what `given`
    takes from the run, `fixed`, and the options, all passed through `arrange` at the end.
    """

    load: Callable[[], type[Optimizer]]
    given: Callable[[Settings], Options] = defaults_only
    options: Mapping[str, Option] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    arrange: Callable[[Settings, Options], Options] = keep
    in_backward: bool = False  # updates during backward: no gradient is left to clip or to accumulate

    def arguments(self, name: str, settings: Settings, optim_args: str | None) -> Options:
        """Return the keyword arguments of the optimizer.

        Raises:
            ArgumentError: `optim_args` cannot be read, or holds what the optimizer does not take.
        """
        options = _read_options(name, self.options, parse_optim_args(optim_args))
        _check_weight_decay(options, settings)
        chosen = {"lr": settings.learning_rate, **self.given(settings), **self.fixed, **options}
        return self.arrange(settings, chosen)


def parse_optim_args(text: str | None) -> dict[str, str]:
    """Split 'key=value,key=value' into a dictionary of strings; spaces do not count."""
    pairs = [item for item in (text or "").replace(" ", "").split(",") if item]
    if wrong := [item for item in pairs if item.count("=") != 1]:
        raise ArgumentError(
            f"optim_args has '{wrong[0]}'; write key=value pairs with commas between, such as 'a=1,b=2'."
        )
    return dict(item.split("=") for item in pairs)


def _read_options(name: str, known: Mapping[str, Option], given: Mapping[str, str]) -> Options:
    if unknown := [key for key in given if key not in known]:
        raise ArgumentError(
            f"optim_args has {', '.join(unknown)}, which the optimizer '{name}' does not take; "
            f"it takes: {', '.join(known) or 'none'}."
        )
    defaults = {key: option.default for key, option in known.items() if option.default is not ABSENT}
    return defaults | {key: _read(key, known[key], text) for key, text in given.items()}


def _read(key: str, option: Option, text: str) -> Any:
    try:
        return option.read(text)
    except (ValueError, KeyError):
        raise ArgumentError(f"optim_args has {key}={text}; write {_KINDS[option.read]}.") from None


def _check_weight_decay(options: Options, settings: Settings) -> None:
    """Refuse a second weight decay: each group carries the run's, so that the optimizer's own would never count."""
    asked = options.get("weight_decay", settings.weight_decay)
    if asked != settings.weight_decay:
        raise ArgumentError(
            f"optim_args has weight_decay={asked}, but the argument weight_decay is {settings.weight_decay}, and every "
            f"group carries that: write weight_decay={asked} as the argument."
        )
