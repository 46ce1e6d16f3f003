"""What trackers are told about a run besides its log: settings, the model, its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from surestep.checkpoint.layout import folder_name
from surestep.checkpoint.weights import save_weights


def model_config(model: Any) -> dict[str, Any]:
    """Return the configuration of a model, `{}` where it has none."""
    config = getattr(model, "config", None)
    if config is None or isinstance(config, dict):
        return config or {}
    to_dict = getattr(config, "to_dict", None)
    return dict(to_dict()) if callable(to_dict) else {}


def adapter_config(model: Any) -> dict[str, Any]:
    """Return the configurations of PEFT's adapters by name, `{}` where there are none."""
    adapters = getattr(model, "peft_config", None) or {}
    return {name: adapter.to_dict() if hasattr(adapter, "to_dict") else adapter for name, adapter in adapters.items()}


def run_config(args: Any, model: Any) -> dict[str, Any]:
    """Return the arguments and the model's configuration in one dict; the arguments win, secrets are masked."""
    adapters = adapter_config(model)
    return {**({"peft_config": adapters} if adapters else {}), **model_config(model), **args.to_dict()}


def num_parameters(model: Any) -> int | None:
    """Return how many parameters a model has, None where there is no model."""
    count = getattr(model, "num_parameters", None)
    if callable(count):
        return int(count())
    parameters = getattr(model, "parameters", None)
    return sum(parameter.numel() for parameter in parameters()) if callable(parameters) else None


def run_folder(args: Any, state: Any) -> Path:
    """Return the folder of a run: the output folder, and below it that of a trial in a search."""
    trial = state.trial_name if state.is_hyper_param_search else None
    return Path(args.output_dir) / (trial or "")


def checkpoint_folder(args: Any, state: Any) -> Path:
    """Return the folder of the checkpoint of this step."""
    folder = run_folder(args, state) / folder_name(state.global_step)
    return folder if folder.is_dir() else Path(args.output_dir) / folder_name(state.global_step)


def save_model_files(folder: Path, args: Any, model: Any, processing_class: Any) -> None:
    """Write the model, its processing class and the arguments into `folder`, as `Trainer.save_model` does."""
    save_weights(model, folder)
    if hasattr(processing_class, "save_pretrained"):
        processing_class.save_pretrained(str(folder))
    args.save_json(folder / "training_args.json")
