"""What became of the trainer's methods and arguments of older versions of the original: tables, and nothing that runs.

`trainer.older` serves old forms by them, and `surestep migrate` rewrites scripts by them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Point:
    """A method that older subclasses override in an older form.

    `today` are its parameters as they are written today. The trainer hands over those in `by_name` as keywords. `spare`
    can be left out whatever they hold; others only while they hold their default. `supply` are parameters that older
    forms want and today's call has no more. `once` is a name that the method had before.
    """

    today: str
    by_name: tuple[str, ...] = ()
    spare: frozenset[str] = frozenset()
    supply: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    once: str = ""
    once_took: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of today's parameters."""
        return tuple(one.partition("=")[0].strip() for one in self.today.split(",")) if self.today else ()

    @property
    def defaults(self) -> dict[str, str]:
        """The parameters that have a default, with it as it is written."""
        pairs = (one.strip().split("=") for one in self.today.split(","))
        return {pair[0]: pair[1] for pair in pairs if len(pair) > 1}


def _nothing(_: Any) -> None:
    return None


_EVALUATE = ("eval_dataset", "ignore_keys", "metric_key_prefix")
_LOOP_NAMES = ("prediction_loss_only", "ignore_keys", "metric_key_prefix")

POINTS: dict[str, Point] = {
    "training_step": Point(
        "model, inputs, num_items_in_batch=None",
        spare=frozenset({"num_items_in_batch"}),
        supply={"optimizer": lambda trainer: trainer.optimizer},
        once="_training_step",
        once_took=("model", "inputs", "optimizer"),
    ),
    "compute_loss": Point(
        "model, inputs, return_outputs=False, num_items_in_batch=None",
        by_name=("return_outputs", "num_items_in_batch"),
        spare=frozenset({"num_items_in_batch", "return_outputs"}),
    ),
    "prediction_step": Point("model, inputs, prediction_loss_only, ignore_keys=None"),
    "log": Point(
        "logs, start_time=None",
        spare=frozenset({"start_time"}),
        supply={"iterator": _nothing},
        once="_log",
        once_took=("logs", "iterator"),
    ),
    "evaluate": Point('eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"', by_name=_EVALUATE),
    "evaluation_loop": Point(
        'dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"',
        by_name=_LOOP_NAMES,
    ),
    "get_batch_samples": Point("epoch_iterator, num_batches, device", spare=frozenset({"device"})),
    "create_scheduler": Point("num_training_steps, optimizer=None", spare=frozenset({"optimizer"})),
    "get_optimizer_cls_and_kwargs": Point("args, model=None", spare=frozenset({"model"})),
    "save_model": Point(
        "output_dir=None, _internal_call=False", by_name=("_internal_call",), spare=frozenset({"_internal_call"})
    ),
    "_save": Point("output_dir=None, state_dict=None"),
    "_save_checkpoint": Point("model, trial", supply={"metrics": _nothing}),
    "_get_train_sampler": Point("train_dataset=None", spare=frozenset({"train_dataset"})),
    "set_initial_training_values": Point(
        "args, dataloader",
        supply={"total_train_batch_size": lambda trainer: trainer.get_total_train_batch_size(trainer.args)},
    ),
    "_maybe_log_save_evaluate": Point(
        "tr_loss, grad_norm, model, trial, epoch, ignore_keys_for_eval, start_time, learning_rate=None",
        by_name=("learning_rate",),
        spare=frozenset({"grad_norm", "start_time", "learning_rate"}),
    ),
}
# Arguments of the constructor that are gone, and what is written instead.
OLD_ARGUMENTS = {
    "tokenizer": "processing_class=...",
    "prediction_loss_only": "TrainingArguments(prediction_loss_only=...)",
    "tb_writer": "callbacks=[TensorBoardCallback(...)]",
}
# Methods of the original (also of older ones) that nothing here calls, and what to write in their place.
_LOOP = "override training_step or get_batch_samples, or run the loop yourself: `with trainer.steps() as steps`"
_GRADIENTS = "change the gradients in a callback's on_pre_optimizer_step"
_DISTRIBUTED = "a model spread over devices is not served yet, see docs/compatibility.md"
_LIMIT = "set save_total_limit, or remove folders in a callback's on_save"
UNCALLED = {
    "_run_epoch": _LOOP,
    "_init_training_state": _LOOP,
    "_prepare_for_training": _LOOP,
    "_clip_grad_norm": _GRADIENTS,
    "_get_grad_norm": _GRADIENTS,
    "_get_learning_rate": "override log, which is given the learning rate",
    "_build_accelerator_args": "override create_accelerator_and_postprocess",
    "_wrap_model": "wrap the model before it is given to the trainer",
    "_validate_args": "check in __init__, before or after super().__init__",
    "_update_auto_batch_size": "set per_device_train_batch_size",
    "_load_callback_state": "give the callback state() and from_state()",
    "_issue_warnings_after_load": "override _load_from_checkpoint",
    "_rotate_checkpoints": _LIMIT,
    "_sorted_checkpoints": _LIMIT,
    "_nested_gather": "override evaluation_loop",
    "_prepare_context_parallel_inputs": _DISTRIBUTED,
    "_defer_fsdp_gradient_reduction": _DISTRIBUTED,
    "_sync_replicated_trainable_parameters": _DISTRIBUTED,
    "_has_mixed_mesh_grads": _GRADIENTS,
    "_mixed_mesh_grad_norm": _GRADIENTS,
    "get_sp_size": _DISTRIBUTED,
    "get_cp_size": _DISTRIBUTED,
    "get_tp_size": _DISTRIBUTED,
}
# Methods that only older versions had. A class may have one of its own by that name, so that these are only told.
_TRACKER = "subclass the tracker's callback and pass it in callbacks"
_COMPILE = "set torch_compile=True"
GONE_METHODS = {
    "_setup_wandb": _TRACKER,
    "setup_wandb": _TRACKER,
    "setup_comet": _TRACKER,
    "_setup_loggers": _TRACKER,
    "_store_flos": "override store_flos",
    "_save_training": "override _save_checkpoint",
    "_save_tpu": "override _save",
    "_actual_model": "use trainer.engine.unwrap(model)",
    "_load_state_dict_in_model": "override _load_from_checkpoint",
    "_gather_and_numpify": "override evaluation_loop",
    "_pad_across_processes": "override evaluation_loop",
    "distributed_concat": "override evaluation_loop",
    "num_tokens": "set include_num_input_tokens_seen",
    "ipex_optimize_model": _COMPILE,
    "torch_jit_model_eval": _COMPILE,
    "torchdynamo_smart_context_manager": _COMPILE,
    "_activate_neftune": "set neftune_noise_alpha",
    "_deactivate_neftune": "set neftune_noise_alpha",
    "compare_trainer_and_checkpoint_args": "override _load_from_checkpoint",
}
# Attributes and methods of a trainer that have another name or place today.
MEMBERS = {
    "tokenizer": "processing_class",
    "is_world_master": "is_world_process_zero",
    "is_local_master": "is_local_process_zero",
    "global_step": "state.global_step",
    "epoch": "state.epoch",
    "log_history": "state.log_history",
    "total_flos": "state.total_flos",
    "prediction_loss_only": "args.prediction_loss_only",
}
# Those that are gone, with what to write or to know.
_AUTOCAST = "it is always off here, as the model's forward carries its own autocast"
_SHARDED = "it is always None here, as sharding is an affair of the engine"
_SCALING = "call trainer.accelerator.backward(loss), which scales"
GONE_MEMBERS = {
    "tb_writer": "pass callbacks=[TensorBoardCallback(writer)]",
    "scaler": _SCALING,
    "do_grad_scaling": _SCALING,
    "use_amp": _AUTOCAST,
    "use_cuda_amp": _AUTOCAST,
    "use_cpu_amp": _AUTOCAST,
    "use_apex": _AUTOCAST,
    "amp_dtype": _AUTOCAST,
    "deepspeed": _SHARDED,
    "sharded_ddp": _SHARDED,
    "sharded_dpp": _SHARDED,
    "fsdp": _SHARDED,
}
# Names of modules that are called otherwise today.
IMPORTS = {"EvaluationStrategy": "IntervalStrategy"}


def fits(signature: inspect.Signature, point: Point) -> bool:
    """Say whether today's call goes through. A parameter that today's call has no more is a sign of an older form."""
    if point.supply.keys() & signature.parameters.keys():
        return False
    positional = [None for name in point.names if name not in point.by_name]
    try:
        signature.bind(*positional, **dict.fromkeys(point.by_name))
    except TypeError:
        return False
    return True
