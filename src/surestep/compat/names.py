"""Every name of the original's that is offered here, for type checkers. Written from `compat/homes.py`, not by hand."""

from surestep.callbacks.early_stopping import EarlyStoppingCallback as EarlyStoppingCallback
from surestep.callbacks.flow import DefaultFlowCallback as DefaultFlowCallback
from surestep.callbacks.jit_checkpoint import JITCheckpointCallback as JITCheckpointCallback
from surestep.callbacks.printer import PrinterCallback as PrinterCallback
from surestep.callbacks.progress import ProgressCallback as ProgressCallback
from surestep.callbacks.trackers.azureml import AzureMLCallback as AzureMLCallback
from surestep.callbacks.trackers.clearml import ClearMLCallback as ClearMLCallback
from surestep.callbacks.trackers.codecarbon import CodeCarbonCallback as CodeCarbonCallback
from surestep.callbacks.trackers.comet import CometCallback as CometCallback
from surestep.callbacks.trackers.dvclive import DVCLiveCallback as DVCLiveCallback
from surestep.callbacks.trackers.entries import rewrite_logs as rewrite_logs
from surestep.callbacks.trackers.flyte import FlyteCallback as FlyteCallback
from surestep.callbacks.trackers.kubeflow import KubeflowCallback as KubeflowCallback
from surestep.callbacks.trackers.mlflow import DagsHubCallback as DagsHubCallback
from surestep.callbacks.trackers.mlflow import MLflowCallback as MLflowCallback
from surestep.callbacks.trackers.neptune import NeptuneCallback as NeptuneCallback
from surestep.callbacks.trackers.swanlab import SwanLabCallback as SwanLabCallback
from surestep.callbacks.trackers.tensorboard import TensorBoardCallback as TensorBoardCallback
from surestep.callbacks.trackers.trackio import TrackioCallback as TrackioCallback
from surestep.callbacks.trackers.wandb import WandbCallback as WandbCallback
from surestep.checkpoint.foreign_names import FSDP_MODEL_NAME as FSDP_MODEL_NAME
from surestep.checkpoint.foreign_names import OPTIMIZER_NAME as OPTIMIZER_NAME
from surestep.checkpoint.foreign_names import OPTIMIZER_NAME_BIN as OPTIMIZER_NAME_BIN
from surestep.checkpoint.foreign_names import PREFIX_CHECKPOINT_DIR as PREFIX_CHECKPOINT_DIR
from surestep.checkpoint.foreign_names import SCALER_NAME as SCALER_NAME
from surestep.checkpoint.foreign_names import SCHEDULER_NAME as SCHEDULER_NAME
from surestep.checkpoint.foreign_names import TRAINER_STATE_NAME as TRAINER_STATE_NAME
from surestep.checkpoint.foreign_names import TRAINING_ARGS_NAME as TRAINING_ARGS_NAME
from surestep.compat.helpers.adamw import AdamW as AdamW
from surestep.compat.helpers.available import is_azureml_available as is_azureml_available
from surestep.compat.helpers.available import is_clearml_available as is_clearml_available
from surestep.compat.helpers.available import is_codecarbon_available as is_codecarbon_available
from surestep.compat.helpers.available import is_comet_available as is_comet_available
from surestep.compat.helpers.available import is_dagshub_available as is_dagshub_available
from surestep.compat.helpers.available import is_dvclive_available as is_dvclive_available
from surestep.compat.helpers.available import is_flyte_deck_standard_available as is_flyte_deck_standard_available
from surestep.compat.helpers.available import is_flytekit_available as is_flytekit_available
from surestep.compat.helpers.available import is_kubeflow_available as is_kubeflow_available
from surestep.compat.helpers.available import is_mlflow_available as is_mlflow_available
from surestep.compat.helpers.available import is_neptune_available as is_neptune_available
from surestep.compat.helpers.available import is_optuna_available as is_optuna_available
from surestep.compat.helpers.available import is_ray_available as is_ray_available
from surestep.compat.helpers.available import is_ray_tune_available as is_ray_tune_available
from surestep.compat.helpers.available import is_swanlab_available as is_swanlab_available
from surestep.compat.helpers.available import is_tensorboard_available as is_tensorboard_available
from surestep.compat.helpers.available import is_trackio_available as is_trackio_available
from surestep.compat.helpers.available import is_wandb_available as is_wandb_available
from surestep.compat.helpers.batch_size import find_executable_batch_size as find_executable_batch_size
from surestep.compat.helpers.callbacks import CallbackHandler as CallbackHandler
from surestep.compat.helpers.checkpoints import (
    compare_trainer_and_checkpoint_args as compare_trainer_and_checkpoint_args,
)
from surestep.compat.helpers.checkpoints import get_last_checkpoint as get_last_checkpoint
from surestep.compat.helpers.checkpoints import load_sharded_checkpoint as load_sharded_checkpoint
from surestep.compat.helpers.checkpoints import remove_dummy_checkpoint as remove_dummy_checkpoint
from surestep.compat.helpers.checkpoints import rotate_checkpoints as rotate_checkpoints
from surestep.compat.helpers.checkpoints import sort_checkpoints as sort_checkpoints
from surestep.compat.helpers.columns import RemoveColumnsCollator as RemoveColumnsCollator
from surestep.compat.helpers.gathering import distributed_broadcast_scalars as distributed_broadcast_scalars
from surestep.compat.helpers.gathering import distributed_concat as distributed_concat
from surestep.compat.helpers.gathering import is_main_process as is_main_process
from surestep.compat.helpers.gathering import nested_gather as nested_gather
from surestep.compat.helpers.gathering import torch_distributed_zero_first as torch_distributed_zero_first
from surestep.compat.helpers.gathering import total_processes_number as total_processes_number
from surestep.compat.helpers.methods import get_learning_rates as get_learning_rates
from surestep.compat.helpers.methods import get_num_trainable_parameters as get_num_trainable_parameters
from surestep.compat.helpers.methods import get_optimizer_group as get_optimizer_group
from surestep.compat.helpers.methods import log_metrics as log_metrics
from surestep.compat.helpers.methods import metrics_format as metrics_format
from surestep.compat.helpers.methods import save_metrics as save_metrics
from surestep.compat.helpers.methods import save_state as save_state
from surestep.compat.helpers.models import check_target_module_exists as check_target_module_exists
from surestep.compat.helpers.models import get_model_param_count as get_model_param_count
from surestep.compat.helpers.models import get_module_class_from_name as get_module_class_from_name
from surestep.compat.helpers.models import get_parameter_names as get_parameter_names
from surestep.compat.helpers.models import is_attention_mask_causal as is_attention_mask_causal
from surestep.compat.helpers.models import number_of_arguments as number_of_arguments
from surestep.compat.helpers.models import unwrap_peft_model as unwrap_peft_model
from surestep.compat.helpers.models import validate_quantization_for_training as validate_quantization_for_training
from surestep.compat.helpers.parsing import DataClass as DataClass
from surestep.compat.helpers.parsing import DataClassType as DataClassType
from surestep.compat.helpers.parsing import log_levels as log_levels
from surestep.compat.helpers.parsing import make_choice_type_function as make_choice_type_function
from surestep.compat.helpers.parsing import str_to_bool as str_to_bool
from surestep.compat.helpers.parsing import string_to_bool as string_to_bool
from surestep.compat.helpers.parsing import trainer_log_levels as trainer_log_levels
from surestep.compat.helpers.samplers import DistributedLengthGroupedSampler as DistributedLengthGroupedSampler
from surestep.compat.helpers.samplers import DistributedSamplerWithLoop as DistributedSamplerWithLoop
from surestep.compat.helpers.samplers import DistributedTensorGatherer as DistributedTensorGatherer
from surestep.compat.helpers.samplers import LengthGroupedSampler as LengthGroupedSampler
from surestep.compat.helpers.samplers import SequentialDistributedSampler as SequentialDistributedSampler
from surestep.compat.helpers.samplers import ShardSampler as ShardSampler
from surestep.compat.helpers.samplers import get_dataloader_sampler as get_dataloader_sampler
from surestep.compat.helpers.samplers import get_length_grouped_indices as get_length_grouped_indices
from surestep.compat.helpers.streams import IterableDatasetShard as IterableDatasetShard
from surestep.compat.helpers.tensors import EvalLoopContainer as EvalLoopContainer
from surestep.compat.helpers.tensors import atleast_1d as atleast_1d
from surestep.compat.helpers.tensors import denumpify_detensorize as denumpify_detensorize
from surestep.compat.helpers.tensors import expand_like as expand_like
from surestep.compat.helpers.tensors import find_batch_size as find_batch_size
from surestep.compat.helpers.tensors import nested_concat as nested_concat
from surestep.compat.helpers.tensors import nested_detach as nested_detach
from surestep.compat.helpers.tensors import nested_new_like as nested_new_like
from surestep.compat.helpers.tensors import nested_numpify as nested_numpify
from surestep.compat.helpers.tensors import nested_truncate as nested_truncate
from surestep.compat.helpers.tensors import numpy_pad_and_concatenate as numpy_pad_and_concatenate
from surestep.compat.helpers.tensors import torch_pad_and_concatenate as torch_pad_and_concatenate
from surestep.compat.helpers.trackers import INTEGRATION_TO_CALLBACK as INTEGRATION_TO_CALLBACK
from surestep.compat.helpers.trackers import default_logdir as default_logdir
from surestep.compat.helpers.trackers import (
    get_available_reporting_integrations as get_available_reporting_integrations,
)
from surestep.compat.helpers.trackers import get_reporting_integration_callbacks as get_reporting_integration_callbacks
from surestep.compat.helpers.warned import reissue_pt_warnings as reissue_pt_warnings
from surestep.config.arguments import Seq2SeqTrainingArguments as Seq2SeqTrainingArguments
from surestep.config.arguments import TrainingArguments as TrainingArguments
from surestep.config.enums import EvaluationStrategy as EvaluationStrategy
from surestep.config.enums import FSDPOption as FSDPOption
from surestep.config.enums import HubStrategy as HubStrategy
from surestep.config.enums import IntervalStrategy as IntervalStrategy
from surestep.config.enums import OptimizerNames as OptimizerNames
from surestep.config.enums import ParallelMode as ParallelMode
from surestep.config.enums import SaveStrategy as SaveStrategy
from surestep.config.enums import SchedulerType as SchedulerType
from surestep.config.enums import ShardedDDPOption as ShardedDDPOption
from surestep.config.parser import HfArg as HfArg
from surestep.config.parser import HfArgumentParser as HfArgumentParser
from surestep.config.topics.hardware import AcceleratorConfig as AcceleratorConfig
from surestep.data.collators.base import DataCollatorMixin as DataCollatorMixin
from surestep.data.collators.default import DefaultDataCollator as DefaultDataCollator
from surestep.data.collators.default import default_data_collator as default_data_collator
from surestep.data.collators.flattening import DataCollatorWithFlattening as DataCollatorWithFlattening
from surestep.data.collators.language_modeling import DataCollatorForLanguageModeling as DataCollatorForLanguageModeling
from surestep.data.collators.multiple_choice import DataCollatorForMultipleChoice as DataCollatorForMultipleChoice
from surestep.data.collators.padding import DataCollatorWithPadding as DataCollatorWithPadding
from surestep.data.collators.permutation import (
    DataCollatorForPermutationLanguageModeling as DataCollatorForPermutationLanguageModeling,
)
from surestep.data.collators.seq2seq import DataCollatorForSeq2Seq as DataCollatorForSeq2Seq
from surestep.data.collators.token_classification import (
    DataCollatorForTokenClassification as DataCollatorForTokenClassification,
)
from surestep.data.data_collator import DataCollator as DataCollator
from surestep.data.data_collator import DataCollatorForWholeWordMask as DataCollatorForWholeWordMask
from surestep.data.data_collator import InputDataClass as InputDataClass
from surestep.data.data_collator import _numpy_collate_batch as _numpy_collate_batch
from surestep.data.data_collator import _torch_collate_batch as _torch_collate_batch
from surestep.data.data_collator import numpy_default_data_collator as numpy_default_data_collator
from surestep.data.data_collator import pad_without_fast_tokenizer_warning as pad_without_fast_tokenizer_warning
from surestep.data.data_collator import to_numpy as to_numpy
from surestep.data.data_collator import tolist as tolist
from surestep.data.data_collator import torch_default_data_collator as torch_default_data_collator
from surestep.data.grouping import BatchRebalanceSampler as BatchRebalanceSampler
from surestep.data.loaders import has_length as has_length
from surestep.data.loaders import seed_worker as seed_worker
from surestep.engine.additions import activate_neftune as activate_neftune
from surestep.engine.additions import deactivate_neftune as deactivate_neftune
from surestep.engine.additions import neftune_post_forward_hook as neftune_post_forward_hook
from surestep.losses.smoothing import LabelSmoother as LabelSmoother
from surestep.metrics.memory import TrainerMemoryTracker as TrainerMemoryTracker
from surestep.metrics.prediction import EvalLoopOutput as EvalLoopOutput
from surestep.metrics.prediction import EvalPrediction as EvalPrediction
from surestep.metrics.prediction import PredictionOutput as PredictionOutput
from surestep.metrics.prediction import TrainOutput as TrainOutput
from surestep.metrics.speed import speed_metrics as speed_metrics
from surestep.optim.adafactor import Adafactor as Adafactor
from surestep.optim.adafactor import AdafactorSchedule as AdafactorSchedule
from surestep.optim.adafactor import get_adafactor_schedule as get_adafactor_schedule
from surestep.optim.build import is_optimizer_factory as is_optimizer_factory
from surestep.optim.greedy import GreedyLR as GreedyLR
from surestep.optim.greedy import StreamingAverage as StreamingAverage
from surestep.optim.layerwise import LayerWiseDummyOptimizer as LayerWiseDummyOptimizer
from surestep.optim.layerwise import LayerWiseDummyScheduler as LayerWiseDummyScheduler
from surestep.optim.schedules import TYPE_TO_SCHEDULER_FUNCTION as TYPE_TO_SCHEDULER_FUNCTION
from surestep.optim.schedules import get_constant_schedule as get_constant_schedule
from surestep.optim.schedules import get_constant_schedule_with_warmup as get_constant_schedule_with_warmup
from surestep.optim.schedules import get_cosine_schedule_with_warmup as get_cosine_schedule_with_warmup
from surestep.optim.schedules import (
    get_cosine_with_hard_restarts_schedule_with_warmup as get_cosine_with_hard_restarts_schedule_with_warmup,
)
from surestep.optim.schedules import (
    get_cosine_with_min_lr_schedule_with_warmup as get_cosine_with_min_lr_schedule_with_warmup,
)
from surestep.optim.schedules import (
    get_cosine_with_min_lr_schedule_with_warmup_lr_rate as get_cosine_with_min_lr_schedule_with_warmup_lr_rate,
)
from surestep.optim.schedules import get_greedy_schedule as get_greedy_schedule
from surestep.optim.schedules import get_inverse_sqrt_schedule as get_inverse_sqrt_schedule
from surestep.optim.schedules import get_linear_schedule_with_warmup as get_linear_schedule_with_warmup
from surestep.optim.schedules import (
    get_polynomial_decay_schedule_with_warmup as get_polynomial_decay_schedule_with_warmup,
)
from surestep.optim.schedules import get_reduce_on_plateau_schedule as get_reduce_on_plateau_schedule
from surestep.optim.schedules import get_scheduler as get_scheduler
from surestep.optim.schedules import get_wsd_schedule as get_wsd_schedule
from surestep.runtime.random import enable_full_determinism as enable_full_determinism
from surestep.runtime.random import set_seed as set_seed
from surestep.trainer.defaults import DEFAULT_CALLBACKS as DEFAULT_CALLBACKS
from surestep.trainer.defaults import DEFAULT_PROGRESS_CALLBACK as DEFAULT_PROGRESS_CALLBACK
from surestep.trainer.search.backend import HPSearchBackend as HPSearchBackend
from surestep.trainer.search.backend import default_hp_search_backend as default_hp_search_backend
from surestep.trainer.search.best import BestRun as BestRun
from surestep.trainer.search.best import default_compute_objective as default_compute_objective
from surestep.trainer.search.optuna_backend import OptunaBackend as OptunaBackend
from surestep.trainer.search.ray_backend import RayTuneBackend as RayTuneBackend
from surestep.trainer.search.space import default_hp_space_optuna as default_hp_space_optuna
from surestep.trainer.search.space import default_hp_space_ray as default_hp_space_ray
from surestep.trainer.search.space import default_hp_space_wandb as default_hp_space_wandb
from surestep.trainer.search.wandb_backend import WandbBackend as WandbBackend
from surestep.trainer.seq2seq import Seq2SeqTrainer as Seq2SeqTrainer
from surestep.trainer.special_tokens import align_special_tokens as align_special_tokens
from surestep.trainer.trainer import Trainer as Trainer
from surestep.training.callback import TrainerCallback as TrainerCallback
from surestep.training.state import ExportableState as ExportableState
from surestep.training.state import TrainerControl as TrainerControl
from surestep.training.state import TrainerState as TrainerState
