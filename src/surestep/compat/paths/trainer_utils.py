"""The names of the original's `trainer_utils`. Written from `compat/homes.py`, not by hand."""

from surestep.checkpoint.foreign_names import PREFIX_CHECKPOINT_DIR as PREFIX_CHECKPOINT_DIR
from surestep.compat.helpers.batch_size import find_executable_batch_size as find_executable_batch_size
from surestep.compat.helpers.checkpoints import (
    compare_trainer_and_checkpoint_args as compare_trainer_and_checkpoint_args,
)
from surestep.compat.helpers.checkpoints import get_last_checkpoint as get_last_checkpoint
from surestep.compat.helpers.checkpoints import load_sharded_checkpoint as load_sharded_checkpoint
from surestep.compat.helpers.checkpoints import rotate_checkpoints as rotate_checkpoints
from surestep.compat.helpers.checkpoints import sort_checkpoints as sort_checkpoints
from surestep.compat.helpers.columns import RemoveColumnsCollator as RemoveColumnsCollator
from surestep.compat.helpers.gathering import is_main_process as is_main_process
from surestep.compat.helpers.gathering import total_processes_number as total_processes_number
from surestep.compat.helpers.models import check_target_module_exists as check_target_module_exists
from surestep.compat.helpers.models import number_of_arguments as number_of_arguments
from surestep.compat.helpers.models import unwrap_peft_model as unwrap_peft_model
from surestep.compat.helpers.models import validate_quantization_for_training as validate_quantization_for_training
from surestep.compat.helpers.tensors import denumpify_detensorize as denumpify_detensorize
from surestep.config.enums import EvaluationStrategy as EvaluationStrategy
from surestep.config.enums import FSDPOption as FSDPOption
from surestep.config.enums import HubStrategy as HubStrategy
from surestep.config.enums import IntervalStrategy as IntervalStrategy
from surestep.config.enums import SaveStrategy as SaveStrategy
from surestep.config.enums import SchedulerType as SchedulerType
from surestep.config.enums import ShardedDDPOption as ShardedDDPOption
from surestep.data.loaders import has_length as has_length
from surestep.data.loaders import seed_worker as seed_worker
from surestep.metrics.memory import TrainerMemoryTracker as TrainerMemoryTracker
from surestep.metrics.prediction import EvalLoopOutput as EvalLoopOutput
from surestep.metrics.prediction import EvalPrediction as EvalPrediction
from surestep.metrics.prediction import PredictionOutput as PredictionOutput
from surestep.metrics.prediction import TrainOutput as TrainOutput
from surestep.metrics.speed import speed_metrics as speed_metrics
from surestep.runtime.random import enable_full_determinism as enable_full_determinism
from surestep.runtime.random import set_seed as set_seed
from surestep.trainer.search.backend import HPSearchBackend as HPSearchBackend
from surestep.trainer.search.best import BestRun as BestRun
from surestep.trainer.search.best import default_compute_objective as default_compute_objective
from surestep.trainer.search.space import default_hp_space_optuna as default_hp_space_optuna
from surestep.trainer.search.space import default_hp_space_ray as default_hp_space_ray
from surestep.trainer.search.space import default_hp_space_wandb as default_hp_space_wandb
from surestep.trainer.special_tokens import align_special_tokens as align_special_tokens
