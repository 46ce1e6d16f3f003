"""Hardware: the CPU on purpose, and what the original hands to accelerate."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from surestep.config.nearest import did_you_mean
from surestep.config.rules import Settings, anything
from surestep.config.topic import Topic
from surestep.config.verdicts import MATHEMATICS, ROUNDING, verdicts
from surestep.errors import ArgumentError


@dataclass
class AcceleratorConfig:
    """What `accelerator_config` holds; the original's names and defaults."""

    split_batches: bool = False
    dispatch_batches: bool | None = None
    even_batches: bool = True
    use_seedable_sampler: bool = True
    non_blocking: bool = False
    gradient_accumulation_kwargs: dict[str, Any] | None = None
    use_configured_state: bool = False

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> "AcceleratorConfig":
        """Return the configuration of a dictionary; a name it does not know is an error."""
        known = [field.name for field in fields(cls)]
        for name in settings:
            if name not in known:
                raise ArgumentError(f"accelerator_config has no {name!r}.{did_you_mean(name, known)}")
        return cls(**settings)

    @classmethod
    def from_json_file(cls, json_file: str) -> "AcceleratorConfig":
        """Return the configuration of a JSON file."""
        try:
            settings = json.loads(Path(json_file).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            message = (
                f"accelerator_config={json_file!r} cannot be read: {error}. Write a dictionary, or a JSON file's path."
            )
            raise ArgumentError(message) from None
        return cls.from_dict(settings)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as a dictionary."""
        return asdict(self)

    def pop(self, key: str, default: Any = None) -> Any:
        """Take a setting out and return it; the default of its class is read from then on."""
        return vars(self).pop(key, default)


# Settings of accelerator_config that nothing serves: the value that needs no serving, and what to do instead.
_UNSERVED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "dispatch_batches": (
        lambda value: not value,
        "Leave dispatch_batches out: every process reads the data by itself and keeps its share, which gives the same "
        "batches. A stream that is dear to read is split with datasets.distributed.split_dataset_by_node.",
    ),
    "use_seedable_sampler": (
        bool,
        "Leave use_seedable_sampler out: an order drawn from torch's global generator follows from no seed, and no "
        "resume could find it again. An override of _get_train_sampler may return any sampler.",
    ),
}
# The same of gradient_accumulation_kwargs; `num_steps` is served.
_UNSERVED_ACCUMULATION: dict[str, tuple[Callable[[Any], bool], str]] = {
    "sync_each_batch": (
        lambda value: not value,
        "Leave sync_each_batch out: it exchanges gradients after every micro-batch, which changes no number and saves "
        "memory only where parameters are sharded.",
    ),
    "adjust_scheduler": (bool, "Leave adjust_scheduler out: schedules step once for each step of the optimizer."),
    "sync_with_dataloader": (bool, "Leave sync_with_dataloader out: the last step of an epoch may be smaller."),
}


def unserved_part(config: AcceleratorConfig) -> str | None:
    """Return what to write instead of the first part that nothing serves; None where all is served."""
    for name, (fine, instead) in _UNSERVED.items():
        if not fine(getattr(config, name)):
            return instead
    accumulation = config.gradient_accumulation_kwargs or {}
    for name, (fine, instead) in _UNSERVED_ACCUMULATION.items():
        if name in accumulation and not fine(accumulation[name]):
            return instead
    return None


@dataclass
class HardwareArguments:
    """The CPU on purpose, and what the original hands to accelerate."""

    use_cpu: bool = field(default=False, metadata={"help": "Train on the CPU, also where there is something faster."})
    accelerator_config: dict | str | None = field(  # type: ignore[type-arg]  # argparse calls the type: no parameters
        default=None,
        metadata={"help": "How batches are shared out, as a dictionary, a JSON object or a JSON file's path."},
    )
    parallelism_config: Any = field(
        default=None, metadata={"help": "Sizes of tensor, context and data parallelism, as accelerate's object."}
    )


def _accelerator(name: str, value: Any) -> AcceleratorConfig:
    """Take a configuration, the original's included, as ours."""
    if value is None or isinstance(value, AcceleratorConfig):
        return value or AcceleratorConfig()
    if hasattr(value, "to_dict") and not isinstance(value, type):
        value = value.to_dict()
    value = Settings(path=True)(name, value)
    return AcceleratorConfig.from_json_file(value) if isinstance(value, str) else AcceleratorConfig.from_dict(value)


def _check(args: HardwareArguments) -> Iterator[str]:
    known = ("num_steps", *_UNSERVED_ACCUMULATION)
    for name in _configured(args).gradient_accumulation_kwargs or {}:
        if name not in known:
            hint = did_you_mean(name, known)
            yield f"accelerator_config: gradient_accumulation_kwargs has no {name!r}; it has {', '.join(known)}.{hint}"


def _configured(args: Any) -> AcceleratorConfig:
    config: AcceleratorConfig = args.accelerator_config or AcceleratorConfig()
    return config


def splits_batches(args: Any) -> bool:
    """Say whether a batch size is that of all processes together, a part of it for each."""
    return _configured(args).split_batches


def work_out_steps(args: Any) -> Iterator[str]:
    """Take accumulation from `accelerator_config`, where it says how many micro-batches a step has."""
    steps = (_configured(args).gradient_accumulation_kwargs or {}).get("num_steps")
    if steps is None:
        return
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        yield f"accelerator_config: num_steps={steps!r}; write a whole number of at least 1."
    elif args.gradient_accumulation_steps not in {1, steps}:
        yield (
            f"gradient_accumulation_steps={args.gradient_accumulation_steps} contradicts num_steps={steps} in "
            "accelerator_config. Write one of the two."
        )
    else:
        args.gradient_accumulation_steps = steps


HARDWARE = Topic(
    HardwareArguments,
    check=_check,
    rules={"accelerator_config": _accelerator, "parallelism_config": anything},
    resumed=verdicts(
        (ROUNDING, "use_cpu"),
        (MATHEMATICS, "accelerator_config parallelism_config"),
    ),
)
