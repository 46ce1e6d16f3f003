"""What the arguments name and nothing serves yet. A row goes when its feature comes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from surestep.config.enums import DebugOption
from surestep.config.messages import shown
from surestep.config.topics.hardware import AcceleratorConfig
from surestep.errors import NotServedError


@dataclass(frozen=True)
class Unserved:
    """What a setting is for that is not served yet, and the values that need no serving."""

    what: str
    fine: Callable[[Any], bool] = lambda value: not value


def _switches_nothing_on(settings: Any) -> bool:
    return not settings or (isinstance(settings, dict) and not any(settings.values()))


def _is_for_one_process(config: Any) -> bool:
    """Say whether a configuration asks for nothing beyond one process, where no batch is split or dispatched."""
    same = AcceleratorConfig(even_batches=config.even_batches, use_configured_state=config.use_configured_state)
    return not config.dispatch_batches and replace(config, dispatch_batches=None) == same


_SHARDING = "sharding over processes (FSDP)"
_DEEPSPEED = "DeepSpeed"
# Where a reader finds what is served and what is not.
PAGE = "docs/compatibility.md"

UNSERVED: dict[str, Unserved] = {
    "enable_jit_checkpoint": Unserved("saving on a signal"),
    "accelerator_config": Unserved("splitting and dispatching batches", _is_for_one_process),
    "parallelism_config": Unserved("tensor and context parallelism"),
    "fsdp": Unserved(_SHARDING),
    "fsdp_config": Unserved(_SHARDING, _switches_nothing_on),
    "deepspeed": Unserved(_DEEPSPEED),
    "debug": Unserved("TPUs", lambda options: DebugOption.TPU_METRICS_DEBUG not in options),
}
# What `accelerate launch` asks for through the environment.
UNSERVED_ENVIRONMENT = {"ACCELERATE_USE_DEEPSPEED": _DEEPSPEED, "ACCELERATE_USE_FSDP": _SHARDING}


def refuse_unserved(args: object) -> None:
    """Raise for the first setting that nothing serves yet: never accepted and ignored."""
    for name, unserved in UNSERVED.items():
        value = getattr(args, name, None)
        if hasattr(args, name) and not unserved.fine(value):
            where = f"{unserved.what}; see {PAGE}"
            raise NotServedError(f"{shown(name, value)} is not served yet ({where}). Leave {name} at its default.")
    for name, what in UNSERVED_ENVIRONMENT.items():
        if os.environ.get(name, "").lower() in {"1", "true", "yes"}:
            raise NotServedError(f"{name} in the environment is not served yet ({what}; see {PAGE}). Unset it.")
