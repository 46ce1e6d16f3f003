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
    """The row of the scope that will serve a setting, and the values that need no serving."""

    row: str
    fine: Callable[[Any], bool] = lambda value: not value


def _is(*values: Any) -> Callable[[Any], bool]:
    return lambda value: any(value is fine or value == fine for fine in values)


def _switches_nothing_on(settings: Any) -> bool:
    return not settings or (isinstance(settings, dict) and not any(settings.values()))


def _is_for_one_process(config: Any) -> bool:
    """Say whether a configuration asks for nothing beyond one process, where no batch is split or dispatched."""
    same = AcceleratorConfig(even_batches=config.even_batches, use_configured_state=config.use_configured_state)
    return not config.dispatch_batches and replace(config, dispatch_batches=None) == same


UNSERVED: dict[str, Unserved] = {
    "eval_use_gather_object": Unserved("B12"),
    "enable_jit_checkpoint": Unserved("H5"),
    "accelerator_config": Unserved("C1", _is_for_one_process),
    "parallelism_config": Unserved("C3"),
    "fsdp": Unserved("C2"),
    "fsdp_config": Unserved("C2", _switches_nothing_on),
    "deepspeed": Unserved("C4"),
    "debug": Unserved("C5", lambda options: DebugOption.TPU_METRICS_DEBUG not in options),
}
# What `accelerate launch` asks for through the environment.
UNSERVED_ENVIRONMENT = {"ACCELERATE_USE_DEEPSPEED": "C4", "ACCELERATE_USE_FSDP": "C2"}


def refuse_unserved(args: object) -> None:
    """Raise for the first setting that nothing serves yet: never accepted and ignored."""
    for name, unserved in UNSERVED.items():
        value = getattr(args, name, None)
        if hasattr(args, name) and not unserved.fine(value):
            where = f"row {unserved.row} of the scope"
            raise NotServedError(f"{shown(name, value)} is not served yet ({where}). Leave {name} at its default.")
    for name, row in UNSERVED_ENVIRONMENT.items():
        if os.environ.get(name, "").lower() in {"1", "true", "yes"}:
            raise NotServedError(f"{name} in the environment is not served yet (row {row} of the scope). Unset it.")
