"""Tracking: where the logs are reported to."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from surestep.config.messages import refuse
from surestep.config.nearest import did_you_mean
from surestep.config.rules import Names, anything
from surestep.config.topic import Topic
from surestep.config.verdicts import HARMLESS, verdicts
from surestep.optional import installed

# Trackers by name, with the modules of which one must be installed; none where no module is needed.
TRACKERS: dict[str, tuple[str, ...]] = {
    "azure_ml": ("azureml.core.run",),
    "comet_ml": ("comet_ml",),
    "dagshub": ("dagshub",),
    "dvclive": ("dvclive",),
    "mlflow": ("mlflow",),
    "neptune": ("neptune",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "codecarbon": ("codecarbon",),
    "clearml": ("clearml",),
    "swanlab": ("swanlab",),
    "trackio": ("trackio",),
    "flyte": ("flytekit",),
    "kubeflow": (),
}


def _mlflow_is_there() -> bool:
    return installed("mlflow") and os.environ.get("DISABLE_MLFLOW_INTEGRATION", "").upper() != "TRUE"


def _comet_is_set_up() -> bool:
    files = (os.environ.get("COMET_CONFIG"), "~/.comet.config", ".comet.config")
    written = any(Path(file).expanduser().is_file() for file in files if file)
    return written or "COMET_API_KEY" in os.environ or os.environ.get("COMET_START_ONLINE", "").lower() == "false"


def _inside_kubeflow() -> bool:
    switched_off = os.environ.get("DISABLE_KUBEFLOW_INTEGRATION", "").upper() == "TRUE"
    return "KUBEFLOW_TRAINER_SERVER_URL" in os.environ and not switched_off


# What "all" asks of a tracker besides its package.
_ALSO: dict[str, Callable[[], bool]] = {
    "azure_ml": lambda: not _mlflow_is_there(),
    "comet_ml": _comet_is_set_up,
    "dagshub": lambda: installed("mlflow"),
    "flyte": lambda: False,
    "kubeflow": _inside_kubeflow,
    "mlflow": _mlflow_is_there,
}


def installed_trackers() -> list[str]:
    """Return what "all" means: the trackers that are installed and set up."""
    return [
        name
        for name, modules in TRACKERS.items()
        if (not modules or any(installed(module) for module in modules)) and _ALSO.get(name, lambda: True)()
    ]


@dataclass
class TrackingArguments:
    """Where the logs are reported to."""

    report_to: list[str] | str | None = field(
        default="none", metadata={"help": "Trackers to report to, by name; 'all' for those installed, 'none' for none."}
    )
    run_name: str | None = field(default=None, metadata={"help": "Name of the run in trackers."})
    project: str = field(default="huggingface", metadata={"help": "Project of the run, for Trackio and W&B."})
    trackio_space_id: str | None = field(default=None, metadata={"help": "Space that shows Trackio's live page."})
    trackio_bucket_id: str | None = field(default=None, metadata={"help": "Bucket that holds Trackio's data."})
    trackio_static_space_id: Literal[False] | str | None = field(
        default=None, metadata={"help": "Space for Trackio's page after training; False for none."}
    )
    tensorboard_dir: str | None = field(
        default=None,
        kw_only=True,
        metadata={
            "help": "Folder of TensorBoard's files; None takes TENSORBOARD_LOGGING_DIR or a folder of the output."
        },
    )


def _trackers(name: str, value: Any) -> list[str]:
    """Take trackers as a list; None and "none" are no tracker, "all" is every one installed."""
    names = [value] if isinstance(value, str) else Names(optional=True)(name, value) or []
    if names == ["none"]:
        return []
    if names == ["all"]:
        return installed_trackers()
    for tracker in names:
        if tracker not in TRACKERS:
            wants = f"all, none, or a list of {', '.join(TRACKERS)}"
            raise refuse(name, value, wants, did_you_mean(tracker, TRACKERS).strip())
    return list(names)


TRACKING = Topic(
    TrackingArguments,
    rules={"report_to": _trackers, "trackio_static_space_id": anything},
    resumed=verdicts(
        (
            HARMLESS,
            "report_to run_name project trackio_space_id trackio_bucket_id trackio_static_space_id tensorboard_dir",
        ),
    ),
)
