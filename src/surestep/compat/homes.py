"""Which names of the original are offered here, and where they live: the one table that all of `compat` reads.

Data alone, and imported by every process under `surestep exec`: keep it free of imports. To offer a name, add it to
`HOMES`: the module of ours must hold it under the same name. A name of the original's training modules that is in none
of the three tables is an error of `tests/unit/compat/test_homes.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

_TRACKERS = "surestep.callbacks.trackers"
_COLLATORS = "surestep.data.collators"
_ENUMS = "surestep.config.enums"
_SCHEDULES = "surestep.optim.schedules"
_PREDICTION = "surestep.metrics.prediction"
_STATE = "surestep.training.state"
_SEARCH = "surestep.trainer.search"
_NOISE = "surestep.engine.additions"
_HELPERS = "surestep.compat.helpers"
_TENSORS = f"{_HELPERS}.tensors"
_GATHERING = f"{_HELPERS}.gathering"
_MODELS = f"{_HELPERS}.models"
_SAMPLERS = f"{_HELPERS}.samplers"
_CHECKPOINTS = f"{_HELPERS}.checkpoints"
_METHODS = f"{_HELPERS}.methods"
_PARSING = f"{_HELPERS}.parsing"
_TRACKER_NAMES = f"{_HELPERS}.trackers"
_AVAILABLE = f"{_HELPERS}.available"
_FILES = "surestep.checkpoint.foreign_names"
_DEFAULTS = "surestep.trainer.defaults"
_COLLATOR_NAMES = "surestep.data.data_collator"

# The original's module -> a name of it (or of an older year's) -> the module of ours that holds it.
HOMES: dict[str, dict[str, str]] = {
    "transformers.trainer": {
        "DEFAULT_CALLBACKS": _DEFAULTS,
        "DEFAULT_PROGRESS_CALLBACK": _DEFAULTS,
        "FSDP_MODEL_NAME": _FILES,
        "OPTIMIZER_NAME": _FILES,
        "OPTIMIZER_NAME_BIN": _FILES,
        "SCALER_NAME": _FILES,
        "SCHEDULER_NAME": _FILES,
        "TRAINER_STATE_NAME": _FILES,
        "TRAINING_ARGS_NAME": _FILES,
        "Trainer": "surestep.trainer.trainer",
    },
    "transformers.training_args": {
        "OptimizerNames": _ENUMS,
        "ParallelMode": _ENUMS,
        "TrainingArguments": "surestep.config.arguments",
        "default_logdir": _TRACKER_NAMES,
        "log_levels": _PARSING,
        "str_to_bool": _PARSING,
        "trainer_log_levels": _PARSING,
    },
    "transformers.trainer_callback": {
        "CallbackHandler": f"{_HELPERS}.callbacks",
        "DefaultFlowCallback": "surestep.callbacks.flow",
        "EarlyStoppingCallback": "surestep.callbacks.early_stopping",
        "ExportableState": _STATE,
        "PrinterCallback": "surestep.callbacks.printer",
        "ProgressCallback": "surestep.callbacks.progress",
        "TrainerCallback": "surestep.training.callback",
        "TrainerControl": _STATE,
        "TrainerState": _STATE,
    },
    "transformers.trainer_utils": {
        "BestRun": f"{_SEARCH}.best",
        "EvalLoopOutput": _PREDICTION,
        "EvaluationStrategy": _ENUMS,
        "EvalPrediction": _PREDICTION,
        "FSDPOption": _ENUMS,
        "HPSearchBackend": f"{_SEARCH}.backend",
        "HubStrategy": _ENUMS,
        "IntervalStrategy": _ENUMS,
        "PREFIX_CHECKPOINT_DIR": _FILES,
        "PredictionOutput": _PREDICTION,
        "RemoveColumnsCollator": f"{_HELPERS}.columns",
        "SaveStrategy": _ENUMS,
        "SchedulerType": _ENUMS,
        "ShardedDDPOption": _ENUMS,
        "TrainOutput": _PREDICTION,
        "TrainerMemoryTracker": "surestep.metrics.memory",
        "align_special_tokens": "surestep.trainer.special_tokens",
        "check_target_module_exists": _MODELS,
        "compare_trainer_and_checkpoint_args": _CHECKPOINTS,
        "default_compute_objective": f"{_SEARCH}.best",
        "default_hp_space_optuna": f"{_SEARCH}.space",
        "default_hp_space_ray": f"{_SEARCH}.space",
        "default_hp_space_wandb": f"{_SEARCH}.space",
        "denumpify_detensorize": _TENSORS,
        "enable_full_determinism": "surestep.runtime.random",
        "find_executable_batch_size": f"{_HELPERS}.batch_size",
        "get_last_checkpoint": _CHECKPOINTS,
        "has_length": "surestep.data.loaders",
        "is_main_process": _GATHERING,
        "load_sharded_checkpoint": _CHECKPOINTS,
        "number_of_arguments": _MODELS,
        "rotate_checkpoints": _CHECKPOINTS,
        "seed_worker": "surestep.data.loaders",
        "set_seed": "surestep.runtime.random",
        "sort_checkpoints": _CHECKPOINTS,
        "speed_metrics": "surestep.metrics.speed",
        "total_processes_number": _GATHERING,
        "unwrap_peft_model": _MODELS,
        "validate_quantization_for_training": _MODELS,
    },
    "transformers.trainer_pt_utils": {
        "AcceleratorConfig": "surestep.config.topics.hardware",
        "BatchRebalanceSampler": "surestep.data.grouping",
        "DistributedLengthGroupedSampler": _SAMPLERS,
        "DistributedSamplerWithLoop": _SAMPLERS,
        "DistributedTensorGatherer": _SAMPLERS,
        "EvalLoopContainer": _TENSORS,
        "IterableDatasetShard": f"{_HELPERS}.streams",
        "LabelSmoother": "surestep.losses.smoothing",
        "LayerWiseDummyOptimizer": "surestep.optim.layerwise",
        "LayerWiseDummyScheduler": "surestep.optim.layerwise",
        "LengthGroupedSampler": _SAMPLERS,
        "SequentialDistributedSampler": _SAMPLERS,
        "ShardSampler": _SAMPLERS,
        "atleast_1d": _TENSORS,
        "distributed_broadcast_scalars": _GATHERING,
        "distributed_concat": _GATHERING,
        "expand_like": _TENSORS,
        "find_batch_size": _TENSORS,
        "get_dataloader_sampler": _SAMPLERS,
        "get_learning_rates": _METHODS,
        "get_length_grouped_indices": _SAMPLERS,
        "get_model_param_count": _MODELS,
        "get_module_class_from_name": _MODELS,
        "get_num_trainable_parameters": _METHODS,
        "get_optimizer_group": _METHODS,
        "get_parameter_names": _MODELS,
        "is_attention_mask_causal": _MODELS,
        "log_metrics": _METHODS,
        "metrics_format": _METHODS,
        "nested_concat": _TENSORS,
        "nested_detach": _TENSORS,
        "nested_gather": _GATHERING,
        "nested_new_like": _TENSORS,
        "nested_numpify": _TENSORS,
        "nested_truncate": _TENSORS,
        "numpy_pad_and_concatenate": _TENSORS,
        "reissue_pt_warnings": f"{_HELPERS}.warned",
        "remove_dummy_checkpoint": _CHECKPOINTS,
        "save_metrics": _METHODS,
        "save_state": _METHODS,
        "torch_distributed_zero_first": _GATHERING,
        "torch_pad_and_concatenate": _TENSORS,
    },
    "transformers.trainer_seq2seq": {
        "Seq2SeqTrainer": "surestep.trainer.seq2seq",
    },
    "transformers.training_args_seq2seq": {
        "Seq2SeqTrainingArguments": "surestep.config.arguments",
    },
    "transformers.data.data_collator": {
        "DataCollator": _COLLATOR_NAMES,
        "DataCollatorForLanguageModeling": f"{_COLLATORS}.language_modeling",
        "DataCollatorForMultipleChoice": f"{_COLLATORS}.multiple_choice",
        "DataCollatorForPermutationLanguageModeling": f"{_COLLATORS}.permutation",
        "DataCollatorForSeq2Seq": f"{_COLLATORS}.seq2seq",
        "DataCollatorForTokenClassification": f"{_COLLATORS}.token_classification",
        "DataCollatorForWholeWordMask": _COLLATOR_NAMES,
        "DataCollatorMixin": f"{_COLLATORS}.base",
        "DataCollatorWithFlattening": f"{_COLLATORS}.flattening",
        "DataCollatorWithPadding": f"{_COLLATORS}.padding",
        "DefaultDataCollator": f"{_COLLATORS}.default",
        "InputDataClass": _COLLATOR_NAMES,
        "_numpy_collate_batch": _COLLATOR_NAMES,
        "_torch_collate_batch": _COLLATOR_NAMES,
        "default_data_collator": f"{_COLLATORS}.default",
        "numpy_default_data_collator": _COLLATOR_NAMES,
        "pad_without_fast_tokenizer_warning": _COLLATOR_NAMES,
        "to_numpy": _COLLATOR_NAMES,
        "tolist": _COLLATOR_NAMES,
        "torch_default_data_collator": _COLLATOR_NAMES,
    },
    "transformers.optimization": {
        "AdamW": f"{_HELPERS}.adamw",
        "Adafactor": "surestep.optim.adafactor",
        "AdafactorSchedule": "surestep.optim.adafactor",
        "GreedyLR": "surestep.optim.greedy",
        "StreamingAverage": "surestep.optim.greedy",
        "TYPE_TO_SCHEDULER_FUNCTION": _SCHEDULES,
        "get_adafactor_schedule": "surestep.optim.adafactor",
        "get_constant_schedule": _SCHEDULES,
        "get_constant_schedule_with_warmup": _SCHEDULES,
        "get_cosine_schedule_with_warmup": _SCHEDULES,
        "get_cosine_with_hard_restarts_schedule_with_warmup": _SCHEDULES,
        "get_cosine_with_min_lr_schedule_with_warmup": _SCHEDULES,
        "get_cosine_with_min_lr_schedule_with_warmup_lr_rate": _SCHEDULES,
        "get_greedy_schedule": _SCHEDULES,
        "get_inverse_sqrt_schedule": _SCHEDULES,
        "get_linear_schedule_with_warmup": _SCHEDULES,
        "get_polynomial_decay_schedule_with_warmup": _SCHEDULES,
        "get_reduce_on_plateau_schedule": _SCHEDULES,
        "get_scheduler": _SCHEDULES,
        "get_wsd_schedule": _SCHEDULES,
    },
    "transformers.hf_argparser": {
        "DataClass": _PARSING,
        "DataClassType": _PARSING,
        "HfArg": "surestep.config.parser",
        "HfArgumentParser": "surestep.config.parser",
        "make_choice_type_function": _PARSING,
        "string_to_bool": _PARSING,
    },
    "transformers.trainer_optimizer": {
        "is_optimizer_factory": "surestep.optim.build",
    },
    "transformers.hyperparameter_search": {
        "OptunaBackend": f"{_SEARCH}.optuna_backend",
        "RayTuneBackend": f"{_SEARCH}.ray_backend",
        "WandbBackend": f"{_SEARCH}.wandb_backend",
        "default_hp_search_backend": f"{_SEARCH}.backend",
    },
    "transformers.trainer_jit_checkpoint": {
        "JITCheckpointCallback": "surestep.callbacks.jit_checkpoint",
    },
    "transformers.integrations.neftune": {
        "activate_neftune": _NOISE,
        "deactivate_neftune": _NOISE,
        "neftune_post_forward_hook": _NOISE,
    },
    "transformers.integrations.integration_utils": {
        "AzureMLCallback": f"{_TRACKERS}.azureml",
        "ClearMLCallback": f"{_TRACKERS}.clearml",
        "CodeCarbonCallback": f"{_TRACKERS}.codecarbon",
        "CometCallback": f"{_TRACKERS}.comet",
        "DVCLiveCallback": f"{_TRACKERS}.dvclive",
        "DagsHubCallback": f"{_TRACKERS}.mlflow",
        "FlyteCallback": f"{_TRACKERS}.flyte",
        "INTEGRATION_TO_CALLBACK": _TRACKER_NAMES,
        "KubeflowCallback": f"{_TRACKERS}.kubeflow",
        "MLflowCallback": f"{_TRACKERS}.mlflow",
        "NeptuneCallback": f"{_TRACKERS}.neptune",
        "SwanLabCallback": f"{_TRACKERS}.swanlab",
        "TensorBoardCallback": f"{_TRACKERS}.tensorboard",
        "TrackioCallback": f"{_TRACKERS}.trackio",
        "WandbCallback": f"{_TRACKERS}.wandb",
        "default_logdir": _TRACKER_NAMES,
        "get_available_reporting_integrations": _TRACKER_NAMES,
        "get_reporting_integration_callbacks": _TRACKER_NAMES,
        **{
            f"is_{package}_available": _AVAILABLE
            for package in (
                *("azureml", "clearml", "codecarbon", "comet", "dagshub", "dvclive", "flyte_deck_standard", "flytekit"),
                *("kubeflow", "mlflow", "neptune", "optuna", "ray", "ray_tune", "swanlab", "tensorboard", "trackio"),
                "wandb",
            )
        },
        "rewrite_logs": f"{_TRACKERS}.entries",
    },
}

# The original's module -> what it imported in older years, and scripts take from it -> the module that has it today,
# of ours or of the original.
MOVED: dict[str, dict[str, str]] = {
    "transformers.trainer": {
        "ALL_LAYERNORM_LAYERS": "transformers.pytorch_utils",
        "AcceleratorConfig": "surestep.config.topics.hardware",
        "DistributedTensorGatherer": _SAMPLERS,
        "EvaluationStrategy": _ENUMS,
        "FSDPOption": _ENUMS,
        "IntervalStrategy": _ENUMS,
        "SequentialDistributedSampler": _SAMPLERS,
        "ShardedDDPOption": _ENUMS,
        "check_target_module_exists": _MODELS,
        "is_apex_available": "transformers.utils",
        "is_torch_tpu_available": "transformers.utils",
        "nested_concat": _TENSORS,
        "nested_numpify": _TENSORS,
    },
}

_XLA = "it is of torch_xla, which nothing here runs on"
_SAGEMAKER = "it is of SageMaker's model parallelism, which ended with torch 1"
_HANDLERS = "nothing here asks its table of optimizers; override create_optimizer or pass optimizer_cls_and_kwargs"
_SIGNALS = "it reaches into the original's loop; set on_signal, and catch surestep.errors.Interrupted"

# The original's module -> a name of it -> why nothing here takes its place. Under `exec` the original's own answers.
KEPT: dict[str, dict[str, str]] = {
    "transformers.trainer": {
        "IS_XLA_FSDPV2_POST_2_2": _XLA,
    },
    "transformers.training_args": {
        "ParallelismConfig": "it is accelerate's own class; import it from accelerate.parallelism_config",
    },
    "transformers.trainer_utils": {
        "suppress_progress_bars": "it is a switch of huggingface_hub; call its utils.disable_progress_bars",
    },
    "transformers.trainer_pt_utils": {
        "get_tpu_sampler": _XLA,
        "nested_xla_mesh_reduce": _XLA,
        "safe_globals": "it is for torch.load of the original's pickles; checkpoints are read and written as data here",
        "set_rng_state_for_device": "generators are read out and put back by surestep.runtime.random",
        "smp_forward_backward": _SAGEMAKER,
        "smp_forward_only": _SAGEMAKER,
        "smp_gather": _SAGEMAKER,
        "smp_nested_concat": _SAGEMAKER,
    },
    "transformers.trainer_optimizer": {
        "has_mixed_dtensor": "groups are split by device mesh in surestep.optim.groups",
    },
    "transformers.integrations.integration_utils": {
        "NeptuneMissingConfiguration": "neptune's own errors come through",
        "WandbLogModel": "write its values into the environment: WANDB_LOG_MODEL=end or checkpoint",
        "hp_params": "read trial.params of Optuna; of the others the trial itself is the values",
        "save_model_architecture_to_file": "it prints the model into a file; write str(model)",
    },
}

# The original's module -> a name of it -> why it cannot work here, and what to do instead. Under `exec` it is refused.
REFUSED: dict[str, dict[str, str]] = {
    "transformers.hyperparameter_search": {
        "ALL_HYPERPARAMETER_SEARCH_BACKENDS": "nothing here asks it; name the backend in hyperparameter_search",
        "HyperParamSearchBackendBase": "its backends drive the original's trainer; name one in hyperparameter_search",
    },
    "transformers.trainer_optimizer": {
        "OptimizerContext": _HANDLERS,
        "OptimizerHandler": _HANDLERS,
    },
    "transformers.trainer_jit_checkpoint": {
        "CheckpointManager": _SIGNALS,
    },
    "transformers.integrations.integration_utils": {
        "run_hp_search_optuna": "it drives the original's trainer; call trainer.hyperparameter_search",
        "run_hp_search_ray": "it drives the original's trainer; call trainer.hyperparameter_search",
        "run_hp_search_wandb": "it drives the original's trainer; call trainer.hyperparameter_search",
    },
}


def served() -> Mapping[str, Mapping[str, str]]:
    """Return the original's modules, their names that are offered here, and the module of ours that holds each."""
    return HOMES


def offered() -> dict[str, str]:
    """Return each offered name, with the module of ours that holds it."""
    return {name: home for names in HOMES.values() for name, home in names.items()}


def reason(name: str) -> str | None:
    """Return why a name of the original is not offered; None where it is, or where the original has no such name."""
    if name in offered():
        return None
    for table in (REFUSED, KEPT):
        for module, names in table.items():
            if name in names:
                return f"{module}.{name} is not offered here: {names[name]}."
    return None
