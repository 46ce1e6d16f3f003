"""The original's questions after the packages of trackers and searches: `is_<package>_available`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from surestep.config.topics.tracking import installed_trackers
from surestep.optional import installed


def _all_installed(*modules: str) -> bool:
    return all(installed(module) for module in modules)


def _is_set_up(tracker: str) -> bool:
    return tracker in installed_trackers()


# What a question asks after -> the modules that must be there, or who answers.
_QUESTIONS: dict[str, tuple[str, ...] | Callable[[], bool]] = {
    "azureml": ("azureml", "azureml.core", "azureml.core.run"),
    "clearml": ("clearml",),
    "codecarbon": ("codecarbon",),
    "comet": partial(_is_set_up, "comet_ml"),
    "dagshub": ("dagshub", "mlflow"),
    "dvclive": ("dvclive",),
    "flyte_deck_standard": ("flytekit", "flytekitplugins.deck"),
    "flytekit": ("flytekit",),
    "kubeflow": partial(_is_set_up, "kubeflow"),
    "mlflow": partial(_is_set_up, "mlflow"),
    "neptune": ("neptune",),
    "optuna": ("optuna",),
    "ray": ("ray",),
    "ray_tune": ("ray", "ray.tune"),
    "swanlab": ("swanlab",),
    "tensorboard": partial(_is_set_up, "tensorboard"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}


def __getattr__(name: str) -> Callable[[], bool]:
    asked = name.removeprefix("is_").removesuffix("_available")
    if name != f"is_{asked}_available" or asked not in _QUESTIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    question = _QUESTIONS[asked]
    answer = partial(_all_installed, *question) if isinstance(question, tuple) else question
    globals()[name] = answer
    return answer


def __dir__() -> list[str]:
    return sorted({*globals(), *(f"is_{asked}_available" for asked in _QUESTIONS)})
