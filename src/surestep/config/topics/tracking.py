"""Tracking: where the logs are reported to."""

from dataclasses import dataclass, field
from typing import Any, Literal

from surestep.config.messages import refuse
from surestep.config.nearest import did_you_mean
from surestep.config.rules import Names, anything
from surestep.config.topic import Topic
from surestep.optional import installed

# Trackers by name, with the modules of which one must be installed; none where "all" does not ask for it.
TRACKERS: dict[str, tuple[str, ...]] = {
    "azure_ml": ("azureml",),
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
    "flyte": (),
    "kubeflow": (),
}


@dataclass
class TrackingArguments:
    """Where the logs are reported to."""

    report_to: list[str] | str | None = field(
        default="none", metadata={"help": "Trackers to report to, by name; 'all' for those installed, 'none' for none."}
    )
    run_name: str | None = field(default=None, metadata={"help": "Name of the run in trackers."})
    project: str = field(default="huggingface", metadata={"help": "Project of the run; Trackio uses it."})
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
        return [tracker for tracker, modules in TRACKERS.items() if any(installed(module) for module in modules)]
    for tracker in names:
        if tracker not in TRACKERS:
            wants = f"all, none, or a list of {', '.join(TRACKERS)}"
            raise refuse(name, value, wants, did_you_mean(tracker, TRACKERS).strip())
    return list(names)


TRACKING = Topic(
    TrackingArguments,
    rules={"report_to": _trackers, "trackio_static_space_id": anything},
)
