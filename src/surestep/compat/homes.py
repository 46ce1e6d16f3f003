"""Which names of the original are offered here, and where they live: the one table that all of `compat` reads.

Data alone, and imported by every process under `surestep exec`: keep it free of imports. To offer a name, add it to
`HOMES`: the module of ours must hold it under the same name. A name of the original's training modules that is in none
of the three tables is an error of `tests/unit/compat/test_homes.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_TRACKERS = "surestep.callbacks.trackers"
_COLLATORS = "surestep.data.collators"
_ENUMS = "surestep.config.enums"
_SCHEDULES = "surestep.optim.schedules"
_PREDICTION = "surestep.metrics.prediction"
_STATE = "surestep.training.state"

# The original's module -> a name of it (or of an older year's) -> the module of ours that holds it.
HOMES: dict[str, dict[str, str]] = {
    "transformers.trainer": {
        "Trainer": "surestep.trainer.trainer",
    },
    "transformers.training_args": {
        "OptimizerNames": _ENUMS,
        "ParallelMode": _ENUMS,
        "TrainingArguments": "surestep.config.arguments",
    },
    "transformers.trainer_callback": {
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
        "EvalLoopOutput": _PREDICTION,
        "EvalPrediction": _PREDICTION,
        "FSDPOption": _ENUMS,
        "HubStrategy": _ENUMS,
        "IntervalStrategy": _ENUMS,
        "PredictionOutput": _PREDICTION,
        "SaveStrategy": _ENUMS,
        "SchedulerType": _ENUMS,
        "TrainOutput": _PREDICTION,
        "enable_full_determinism": "surestep.runtime.random",
        "has_length": "surestep.data.loaders",
        "speed_metrics": "surestep.metrics.speed",
    },
    "transformers.trainer_pt_utils": {
        "AcceleratorConfig": "surestep.config.topics.hardware",
        "LabelSmoother": "surestep.losses.smoothing",
    },
    "transformers.trainer_seq2seq": {
        "Seq2SeqTrainer": "surestep.trainer.seq2seq",
    },
    "transformers.training_args_seq2seq": {
        "Seq2SeqTrainingArguments": "surestep.config.arguments",
    },
    "transformers.data.data_collator": {
        "DataCollatorForLanguageModeling": f"{_COLLATORS}.language_modeling",
        "DataCollatorForMultipleChoice": f"{_COLLATORS}.multiple_choice",
        "DataCollatorForPermutationLanguageModeling": f"{_COLLATORS}.permutation",
        "DataCollatorForSeq2Seq": f"{_COLLATORS}.seq2seq",
        "DataCollatorForTokenClassification": f"{_COLLATORS}.token_classification",
        "DataCollatorMixin": f"{_COLLATORS}.base",
        "DataCollatorWithFlattening": f"{_COLLATORS}.flattening",
        "DataCollatorWithPadding": f"{_COLLATORS}.padding",
        "DefaultDataCollator": f"{_COLLATORS}.default",
        "default_data_collator": f"{_COLLATORS}.default",
    },
    "transformers.optimization": {
        "Adafactor": "surestep.optim.adafactor",
        "AdafactorSchedule": "surestep.optim.adafactor",
        "GreedyLR": "surestep.optim.greedy",
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
        "HfArg": "surestep.config.parser",
        "HfArgumentParser": "surestep.config.parser",
    },
    "transformers.trainer_optimizer": {},
    "transformers.trainer_jit_checkpoint": {},
    "transformers.integrations.integration_utils": {
        "TensorBoardCallback": f"{_TRACKERS}.tensorboard",
        "rewrite_logs": f"{_TRACKERS}.tensorboard",
    },
}

# The original's module -> a name of it -> why nothing here takes its place. Under `exec` the original's own answers.
KEPT: dict[str, dict[str, str]] = {}

# The original's module -> a name of it -> why it cannot work here, and what to do instead. Under `exec` it is refused.
REFUSED: dict[str, dict[str, str]] = {
    "transformers.trainer_jit_checkpoint": {
        "CheckpointManager": "it saves from a signal handler of its own; signals are always served here",
        "JITCheckpointCallback": "it reaches into the original's loop; signals are always served here",
    },
}


def served() -> Mapping[str, Mapping[str, str]]:
    """Return the original's modules, their names that are offered here, and the module of ours that holds each."""
    return HOMES


def offered() -> Iterator[tuple[str, str]]:
    """Yield each offered name once, with the module of ours that holds it."""
    homes: dict[str, str] = {}
    for names in HOMES.values():
        homes.update(names)
    yield from homes.items()
