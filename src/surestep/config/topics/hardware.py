"""Hardware: the CPU on purpose, and what the original hands to accelerate."""

import json
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


HARDWARE = Topic(
    HardwareArguments,
    rules={"accelerator_config": _accelerator, "parallelism_config": anything},
    resumed=verdicts(
        (ROUNDING, "use_cpu"),
        (MATHEMATICS, "accelerator_config parallelism_config"),
    ),
)
