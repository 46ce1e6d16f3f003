"""What the arguments name and nothing serves yet. A row goes when its feature comes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from surestep.config.enums import DebugOption
from surestep.config.messages import shown
from surestep.config.topics.hardware import unserved_part
from surestep.errors import NotServedError


def _nothing_more(value: Any) -> str | None:
    del value
    return None


@dataclass(frozen=True)
class Unserved:
    """What a setting is for that is not served yet, and the values that need no serving.

    `instead` says what to write in the place of a value; without it the setting is to stay at its default.
    """

    what: str
    fine: Callable[[Any], bool] = lambda value: not value
    instead: Callable[[Any], str | None] = _nothing_more


def _switches_nothing_on(settings: Any) -> bool:
    return not settings or (isinstance(settings, dict) and not any(settings.values()))


_SHARDING = "sharding over processes (FSDP)"
_DEEPSPEED = "DeepSpeed"
# Where a reader finds what is served and what is not.
PAGE = "docs/compatibility.md"

UNSERVED: dict[str, Unserved] = {
    "accelerator_config": Unserved(
        "reading in one process for all, orders without a seed",
        lambda config: unserved_part(config) is None,
        unserved_part,
    ),
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
            instead = unserved.instead(value) or f"Leave {name} at its default."
            raise NotServedError(f"{shown(name, value)} is not served yet ({where}). {instead}")
    for name, what in UNSERVED_ENVIRONMENT.items():
        if os.environ.get(name, "").lower() in {"1", "true", "yes"}:
            raise NotServedError(f"{name} in the environment is not served yet ({what}; see {PAGE}). Unset it.")
