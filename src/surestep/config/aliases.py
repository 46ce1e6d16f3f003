"""Every older spelling of a setting, 3.x to 5.x, and what becomes of it. One table; a row is all that a name needs."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from surestep.config.messages import shown
from surestep.errors import ArgumentError


class _Nothing:
    """What an old value means that asks for nothing: today's setting is left alone."""

    def __repr__(self) -> str:
        return "NOTHING"


NOTHING = _Nothing()


def _same(value: Any) -> Any:
    return NOTHING if value is None else value


def _unchanged(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Alias(ABC):
    """An old name. `kind` is how a command line reads its value, `default` what it held when nobody set it."""

    kind: Callable[[str], Any] = str
    default: Any = None

    @abstractmethod
    def take(self, name: str, value: Any, /) -> dict[str, Any]:
        """Return the settings of today that the old one asks for; raise where there are none."""

    @abstractmethod
    def advice(self, name: str, value: Any, /) -> str:
        """Return what to write today, as the rest of a sentence."""


@dataclass(frozen=True)
class Renamed(Alias):
    """A setting with another name today: `to`, its value passed through `convert` (and `back` when it is read).

    `over` are values of today's setting that give way to the old one, where both are given. `note` ends the warning.
    """

    to: str = ""
    convert: Callable[[Any], Any] = _same
    back: Callable[[Any], Any] = _unchanged
    over: tuple[Any, ...] = ()
    note: str = ""

    def take(self, name: str, value: Any, /) -> dict[str, Any]:
        """Return today's setting with its value."""
        try:
            new = self.convert(value)
        except ValueError as error:
            raise ArgumentError(f"{name}={value!r} cannot be right: {error}") from None
        return {} if new is NOTHING else {self.to: new}

    @property
    def keeps_value(self) -> bool:
        """Whether only the name changes: a value that is not known yet can be written under the new one."""
        return self.convert in _KEEPING

    @property
    def reads_alike(self) -> bool:
        """Whether reading today's setting gives what reading the old one gave."""
        return self.back is _unchanged

    def read(self, args: Any, /) -> Any:
        """Return what the old name holds, for arguments of today."""
        return self.back(getattr(args, self.to))

    def advice(self, name: str, value: Any, /) -> str:
        """Return the assignment to write today."""
        settings = self.take(name, value)
        if not settings:
            return f"leave it out; it is called {self.to} today"
        return f"write {shown(self.to, settings[self.to])}{self.note}"


@dataclass(frozen=True)
class LoggingDir(Renamed):
    """The folder of TensorBoard's files, which older scripts read before training, to write there themselves."""

    def read(self, args: Any, /) -> Any:
        """Return the folder; one with the time in its name is settled when it is first read."""
        folder = self.back(getattr(args, self.to))
        if folder is None:
            from surestep.config.folders import dated_folder

            folder = args.tensorboard_dir = str(dated_folder(args.output_dir))
        return folder


@dataclass(frozen=True)
class NoEffect(Alias):
    """A setting that is gone, and that cannot change results: leaving it out says the same. `why` is that reason."""

    why: str = ""

    def take(self, _name: str, _value: Any, /) -> dict[str, Any]:
        """Return no setting."""
        return {}

    def advice(self, _name: str, _value: Any, /) -> str:
        """Return that it can go."""
        return f"leave it out; it has no effect, since {self.why}"


@dataclass(frozen=True)
class Refused(Alias):
    """A setting that is gone and would change results, but for its `harmless` values. `instead` is what replaces it."""

    instead: str = ""
    harmless: tuple[Any, ...] = ()

    def take(self, name: str, value: Any, /) -> dict[str, Any]:
        """Return no setting where the value is harmless, or raise."""
        if value is None or value == self.default or any(value == fine for fine in self.harmless):
            return {}
        raise ArgumentError(f"{shown(name, value)} is gone. {self.instead}")

    def advice(self, _name: str, _value: Any, /) -> str:
        """Return that it can go."""
        return "leave it out; this value asks for nothing"


def _flag(to: str, value: Any, *, back: Callable[[Any], bool] | None = None) -> Renamed:
    """Return the alias of an old truth value that stood for one `value` of today's setting."""
    read = back or (lambda today: bool(today == value))
    return Renamed(bool, False, to, convert=lambda on: value if on else NOTHING, back=read)


def _key(to: str, key: str, kind: Callable[[str], Any], default: Any = None) -> Renamed:
    """Return the alias of a setting that is a key of a dictionary today."""

    def back(settings: Any) -> Any:
        values = settings if isinstance(settings, dict) else vars(settings) if settings is not None else {}
        return values.get(key, default)

    return Renamed(kind, default, to, convert=lambda value: {key: value} if value else NOTHING, back=back)


def _fraction(ratio: float) -> Any:
    if not 0 <= float(ratio or 0) < 1:
        raise ValueError("it must be a fraction below 1. Write warmup_steps with a number of steps instead.")
    return ratio or NOTHING


def _token(value: Any) -> Any:
    return NOTHING if value is None or value == "<PUSH_TO_HUB_TOKEN>" else value


def _tensorboard_dir(today: str | None) -> str | None:
    return today or os.environ.get("TENSORBOARD_LOGGING_DIR")


def _layer_classes(name: Any) -> Any:
    return {"transformer_layer_cls_to_wrap": [name] if isinstance(name, str) else name} if name else NOTHING


# The conversions that hand on a value or leave it out.
_KEEPING = (_same, _fraction, _token)
_BACKENDS = ("auto", "amp", "cuda_amp", "cpu_amp")
_APEX = 'Mixed precision is torch\'s own; "apex" and its kind are not. Write fp16=True or bf16=True alone.'
_TORCH_DECIDES = "mixed precision is torch's own"

ALIASES: dict[str, Alias] = {
    # Evaluation
    "evaluation_strategy": Renamed(to="eval_strategy", default="no"),
    "evaluate_during_training": _flag("eval_strategy", "steps", back=lambda today: bool(today != "no")),
    "include_inputs_for_metrics": _flag("include_for_metrics", ["inputs"], back=lambda today: "inputs" in today),
    "use_legacy_prediction_loop": NoEffect(bool, False, "there is one evaluation loop"),
    "predict_from_generate": _flag("predict_with_generate", True),
    # Batches, optimizer, schedule
    "per_gpu_train_batch_size": Renamed(int, to="per_device_train_batch_size"),
    "per_gpu_eval_batch_size": Renamed(int, to="per_device_eval_batch_size"),
    "warmup_ratio": Renamed(
        float,
        0.0,
        to="warmup_steps",
        convert=_fraction,
        back=lambda today: today if today < 1 else 0.0,
        over=(0,),
    ),
    "adafactor": _flag("optim", "adafactor"),
    "label_smoothing": Renamed(float, 0.0, to="label_smoothing_factor"),
    "lr_scheduler": Renamed(to="lr_scheduler_type", default="linear"),
    "group_by_length": _flag("train_sampling_strategy", "group_by_length"),
    "past_index": Refused(int, -1, "Models hand their caches on themselves; take one that does."),
    # Precision and compilation
    "fp16_backend": Refused(str, "auto", _APEX, _BACKENDS),
    "half_precision_backend": Refused(str, "auto", _APEX, _BACKENDS),
    "fp16_opt_level": NoEffect(str, "O1", _TORCH_DECIDES),
    "torchdynamo": Renamed(to="torch_compile_backend"),
    "jit_mode_eval": NoEffect(bool, False, "it traced the model for speed alone; torch_compile=True compiles it"),
    "use_ipex": NoEffect(bool, False, "it was for speed alone; torch_compile=True compiles the model"),
    # Devices
    "no_cuda": _flag("use_cpu", True),
    "use_mps_device": NoEffect(bool, False, "Apple's GPU is taken where there is one"),
    "xpu_backend": Renamed(to="ddp_backend"),
    "sharded_ddp": Refused(str, "", "Write fsdp=True, and its settings into fsdp_config.", (False, [])),
    "fsdp_min_num_params": _key("fsdp_config", "min_num_params", int, 0),
    "fsdp_transformer_layer_cls_to_wrap": Renamed(
        to="fsdp_config",
        convert=_layer_classes,
        back=lambda today: (today if isinstance(today, dict) else {}).get("transformer_layer_cls_to_wrap"),
    ),
    "dispatch_batches": _key("accelerator_config", "dispatch_batches", bool),
    "split_batches": _key("accelerator_config", "split_batches", bool, False),
    "model_parallel": Refused(bool, False, 'Load the model with device_map="auto".'),
    "mp_parameters": Refused(str, "", "SageMaker's model parallelism is gone; write fsdp=True."),
    "tp_size": Refused(int, 0, "Write parallelism_config with its tp_size.", (1,)),
    "tpu_num_cores": Refused(int, None, "Tell the launcher how many processes to start; it is no setting of the run."),
    "tpu_metrics_debug": _flag("debug", "tpu_metrics_debug", back=lambda today: "tpu_metrics_debug" in today),
    # Output, logging, Hub
    "logging_dir": LoggingDir(
        to="tensorboard_dir",
        back=_tensorboard_dir,
        note=", or set the environment variable TENSORBOARD_LOGGING_DIR",
    ),
    "overwrite_output_dir": NoEffect(bool, False, "the output folder is never asked to be empty"),
    "save_safetensors": Refused(bool, True, "Weights are written as safetensors, never as pickles. Leave it out."),
    "include_tokens_per_second": _flag("include_num_input_tokens_seen", "all", back=lambda today: today != "no"),
    "push_to_hub_model_id": Renamed(to="hub_model_id"),
    "push_to_hub_organization": Refused(str, None, 'Write hub_model_id="organisation/name".'),
    "push_to_hub_token": Renamed(to="hub_token", convert=_token),
    "ray_scope": Refused(str, "last", "Set the environment variable RAY_SCOPE."),
    # Names that are fields still, and mirror today's
    "gradient_checkpointing": Renamed(bool, to="activation_checkpointing"),
    "gradient_checkpointing_kwargs": Renamed(to="activation_checkpointing_kwargs"),
}

# Older words among the values of settings that kept their name.
OLD_VALUES: dict[tuple[str, object], Any] = {
    ("optim", "adamw_hf"): "adamw_torch",
    ("optim", "adamw_apex_fused"): "adamw_torch_fused",
    ("lr_scheduler_type", "cosine_w_restarts"): "cosine_with_restarts",
    ("lr_scheduler_type", "constant_w_warmup"): "constant_with_warmup",
    ("ddp_backend", "ccl"): "xccl",
    ("debug", True): "tpu_metrics_debug",
}

# Intervals of which -1 once meant never, and the strategy that says so today.
NEVER = {"logging_steps": "logging_strategy", "save_steps": "save_strategy", "eval_steps": "eval_strategy"}

# Names that people try and no version had.
GUESSES = {
    "lr": "learning_rate",
    "batch_size": "per_device_train_batch_size",
    "train_batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "optimizer": "optim",
    "scheduler": "lr_scheduler_type",
    "gradient_clipping": "max_grad_norm",
    "accumulate_grad_batches": "gradient_accumulation_steps",
    "num_workers": "dataloader_num_workers",
    "early_stopping_patience": "load_best_model_at_end with EarlyStoppingCallback(early_stopping_patience=...)",
    "tokenizer": "Trainer(processing_class=...)",
}


def old_value(name: str, value: Any) -> Any:
    """Return today's word for an older one among a setting's values; NOTHING where the value is no older word."""
    return OLD_VALUES.get((name, value), NOTHING) if type(value) in {str, bool} else NOTHING
