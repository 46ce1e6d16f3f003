"""Which tracker a name of `report_to` means."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from surestep.config.nearest import did_you_mean
from surestep.config.topics.tracking import installed_trackers
from surestep.errors import ArgumentError
from surestep.training.callback import TrainerCallback

# Name in `report_to`: the module of this folder and the class in it.
_CLASSES = {
    "azure_ml": ("azureml", "AzureMLCallback"),
    "clearml": ("clearml", "ClearMLCallback"),
    "codecarbon": ("codecarbon", "CodeCarbonCallback"),
    "comet_ml": ("comet", "CometCallback"),
    "dagshub": ("mlflow", "DagsHubCallback"),
    "dvclive": ("dvclive", "DVCLiveCallback"),
    "flyte": ("flyte", "FlyteCallback"),
    "kubeflow": ("kubeflow", "KubeflowCallback"),
    "mlflow": ("mlflow", "MLflowCallback"),
    "neptune": ("neptune", "NeptuneCallback"),
    "swanlab": ("swanlab", "SwanLabCallback"),
    "tensorboard": ("tensorboard", "TensorBoardCallback"),
    "trackio": ("trackio", "TrackioCallback"),
    "wandb": ("wandb", "WandbCallback"),
}


def tracker_callbacks(names: str | Iterable[str] | None) -> list[type[TrainerCallback]]:
    """Return the classes of the trackers that `report_to` names.

    "none" and None mean no tracker, "all" every one that is installed and set up. The JSON lines need no name: they
    are always written. An unknown name raises `ArgumentError`.
    """
    chosen = [names] if isinstance(names, str) else list(names or [])
    if "all" in chosen:
        chosen = installed_trackers()
    return [_load(name) for name in chosen if name != "none"]


def _load(name: str) -> type[TrainerCallback]:
    if name not in _CLASSES:
        known = ", ".join(repr(known) for known in _CLASSES)
        hint = did_you_mean(str(name), [*_CLASSES, "all", "none"])
        raise ArgumentError(f'report_to={name!r} names no tracker.{hint} Write {known}, "all" or "none".')
    module, attribute = _CLASSES[name]
    found: type[TrainerCallback] = getattr(importlib.import_module(f"surestep.callbacks.trackers.{module}"), attribute)
    return found
