"""The face: Trainer and what puts its parts together.

The package is also what scripts know as the module `trainer`: the names of the table are found when they are asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from surestep.checkpoint.foreign_names import FSDP_MODEL_NAME as FSDP_MODEL_NAME
    from surestep.checkpoint.foreign_names import OPTIMIZER_NAME as OPTIMIZER_NAME
    from surestep.checkpoint.foreign_names import OPTIMIZER_NAME_BIN as OPTIMIZER_NAME_BIN
    from surestep.checkpoint.foreign_names import SCALER_NAME as SCALER_NAME
    from surestep.checkpoint.foreign_names import SCHEDULER_NAME as SCHEDULER_NAME
    from surestep.checkpoint.foreign_names import TRAINER_STATE_NAME as TRAINER_STATE_NAME
    from surestep.checkpoint.foreign_names import TRAINING_ARGS_NAME as TRAINING_ARGS_NAME
    from surestep.trainer.defaults import DEFAULT_CALLBACKS as DEFAULT_CALLBACKS
    from surestep.trainer.defaults import DEFAULT_PROGRESS_CALLBACK as DEFAULT_PROGRESS_CALLBACK
    from surestep.trainer.trainer import Trainer as Trainer

_FILES = ("FSDP_MODEL_NAME", "OPTIMIZER_NAME", "OPTIMIZER_NAME_BIN", "SCALER_NAME", "SCHEDULER_NAME")
_HOMES = {
    "surestep.checkpoint.foreign_names": (*_FILES, "TRAINER_STATE_NAME", "TRAINING_ARGS_NAME"),
    "surestep.trainer.defaults": ("DEFAULT_CALLBACKS", "DEFAULT_PROGRESS_CALLBACK"),
    "surestep.trainer.trainer": ("Trainer",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
