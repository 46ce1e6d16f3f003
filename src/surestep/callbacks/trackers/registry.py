"""Which tracker a name of `report_to` means."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable

from surestep.errors import ArgumentError, NotServedError
from surestep.logs import get_logger
from surestep.optional import installed
from surestep.training.callback import TrainerCallback

_logger = get_logger(__name__)

# Name: module and class here, and the package that it needs.
_SERVED = {
    "tensorboard": ("surestep.callbacks.trackers.tensorboard", "TensorBoardCallback", "tensorboard"),
}
# The other names of the original, with the package that each needs.
_NOT_SERVED = {
    "azure_ml": "azureml",
    "clearml": "clearml",
    "codecarbon": "codecarbon",
    "comet_ml": "comet_ml",
    "dagshub": "dagshub",
    "dvclive": "dvclive",
    "flyte": "flytekit",
    "kubeflow": "kubeflow",
    "mlflow": "mlflow",
    "neptune": "neptune",
    "swanlab": "swanlab",
    "trackio": "trackio",
    "wandb": "wandb",
}


def tracker_callbacks(names: str | Iterable[str] | None) -> list[type[TrainerCallback]]:
    """Return the classes of the trackers that `report_to` names.

    "none" and None mean no tracker, "all" every one whose package is installed. The JSON lines need no name: they are
    always written. A name of the original that nothing serves yet raises `NotServedError`; an unknown one
    `ArgumentError`.
    """
    if names is None or names == "none":
        return []
    chosen = [names] if isinstance(names, str) else list(names)
    if "all" in chosen:
        chosen = _all_installed()
    return [_load(name) for name in chosen if name != "none"]


def _all_installed() -> list[str]:
    """Return the served names whose package is installed, and say which installed ones are not served."""
    passed_over = [name for name, package in _NOT_SERVED.items() if installed(package)]
    if passed_over:
        _logger.warning('report_to="all" leaves out what is not served yet: %s.', ", ".join(passed_over))
    return [name for name, (_, _, package) in _SERVED.items() if installed(package)]


def _load(name: str) -> type[TrainerCallback]:
    if name in _SERVED:
        module, attribute, _ = _SERVED[name]
        callback: type[TrainerCallback] = getattr(importlib.import_module(module), attribute)
        return callback
    served = ", ".join(repr(known) for known in _SERVED)
    if name in _NOT_SERVED:
        raise NotServedError(
            f"report_to={name!r} is not served yet (scope row B10). Write report_to={served}, or hand a callback of "
            "your own to Trainer(callbacks=[...])."
        )
    near = difflib.get_close_matches(str(name), [*_SERVED, *_NOT_SERVED, "all", "none"], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ArgumentError(f'report_to={name!r} names no tracker.{hint} Write {served}, "all" or "none".')
