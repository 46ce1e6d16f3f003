"""surestep: a training library for PyTorch. Every step counted once, none lost."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The original's module paths, such as `surestep.trainer_utils`: small modules in a folder of their own.
__path__.append(f"{__path__[0]}/compat/paths")

# Where each public name lives. Nothing is imported before it is asked for: `import surestep` needs no torch.
_HOMES = {
    "surestep.callbacks.averaging": ("EMACallback", "SWACallback"),
    "surestep.callbacks.early_stopping": ("EarlyStoppingCallback",),
    "surestep.callbacks.flow": ("DefaultFlowCallback",),
    "surestep.callbacks.freezing": ("FreezeCallback",),
    "surestep.callbacks.printer": ("PrinterCallback",),
    "surestep.callbacks.profiler": ("ProfilerCallback",),
    "surestep.callbacks.progress": ("ProgressCallback",),
    "surestep.callbacks.trackers.azureml": ("AzureMLCallback",),
    "surestep.callbacks.trackers.clearml": ("ClearMLCallback",),
    "surestep.callbacks.trackers.codecarbon": ("CodeCarbonCallback",),
    "surestep.callbacks.trackers.comet": ("CometCallback",),
    "surestep.callbacks.trackers.dvclive": ("DVCLiveCallback",),
    "surestep.callbacks.trackers.flyte": ("FlyteCallback",),
    "surestep.callbacks.trackers.kubeflow": ("KubeflowCallback",),
    "surestep.callbacks.trackers.mlflow": ("DagsHubCallback", "MLflowCallback"),
    "surestep.callbacks.trackers.neptune": ("NeptuneCallback",),
    "surestep.callbacks.trackers.swanlab": ("SwanLabCallback",),
    "surestep.callbacks.trackers.tensorboard": ("TensorBoardCallback",),
    "surestep.callbacks.trackers.trackio": ("TrackioCallback",),
    "surestep.callbacks.trackers.wandb": ("WandbCallback",),
    "surestep.config.arguments": ("Seq2SeqTrainingArguments", "TrainingArguments"),
    "surestep.config.enums": ("IntervalStrategy", "OptimizerNames", "SaveStrategy", "SchedulerType"),
    "surestep.config.parser": ("HfArgumentParser",),
    "surestep.data.collators.default": ("DefaultDataCollator", "default_data_collator"),
    "surestep.data.collators.flattening": ("DataCollatorWithFlattening",),
    "surestep.data.collators.language_modeling": ("DataCollatorForLanguageModeling",),
    "surestep.data.collators.multiple_choice": ("DataCollatorForMultipleChoice",),
    "surestep.data.collators.padding": ("DataCollatorWithPadding",),
    "surestep.data.collators.permutation": ("DataCollatorForPermutationLanguageModeling",),
    "surestep.data.collators.seq2seq": ("DataCollatorForSeq2Seq",),
    "surestep.data.collators.token_classification": ("DataCollatorForTokenClassification",),
    "surestep.data.streams": ("ShuffledStream",),
    "surestep.errors": ("Interrupted", "SurestepError"),
    "surestep.losses.contrastive": ("ContrastiveLoss", "InBatchContrastiveLoss"),
    "surestep.losses.cross_entropy": ("CrossEntropyLoss", "TokenCrossEntropyLoss"),
    "surestep.losses.focal": ("FocalLoss",),
    "surestep.losses.margins": ("ArcFaceLoss", "CosFaceLoss", "CosineHead"),
    "surestep.losses.pair": ("LossSum",),
    "surestep.losses.regression": ("HuberLoss", "MSELoss"),
    "surestep.losses.triplet": ("TripletLoss",),
    "surestep.metrics.prediction": ("EvalLoopOutput", "EvalPrediction", "PredictionOutput", "TrainOutput"),
    "surestep.metrics.shards": ("load_predictions",),
    "surestep.runtime.random": ("seed_everything",),
    "surestep.trainer.search.backend": ("HPSearchBackend", "default_hp_search_backend"),
    "surestep.trainer.search.best": ("BestRun", "default_compute_objective"),
    "surestep.trainer.search.space": ("default_hp_space_optuna", "default_hp_space_ray", "default_hp_space_wandb"),
    "surestep.trainer.seq2seq": ("Seq2SeqTrainer",),
    "surestep.trainer.trainer": ("Trainer",),
    "surestep.training.callback": ("TrainerCallback",),
    "surestep.training.state": ("ExportableState", "TrainerControl", "TrainerState"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605 (the table above is the list)

if TYPE_CHECKING:
    from surestep.callbacks.averaging import EMACallback as EMACallback
    from surestep.callbacks.averaging import SWACallback as SWACallback
    from surestep.callbacks.early_stopping import EarlyStoppingCallback as EarlyStoppingCallback
    from surestep.callbacks.flow import DefaultFlowCallback as DefaultFlowCallback
    from surestep.callbacks.freezing import FreezeCallback as FreezeCallback
    from surestep.callbacks.printer import PrinterCallback as PrinterCallback
    from surestep.callbacks.profiler import ProfilerCallback as ProfilerCallback
    from surestep.callbacks.progress import ProgressCallback as ProgressCallback
    from surestep.callbacks.trackers.azureml import AzureMLCallback as AzureMLCallback
    from surestep.callbacks.trackers.clearml import ClearMLCallback as ClearMLCallback
    from surestep.callbacks.trackers.codecarbon import CodeCarbonCallback as CodeCarbonCallback
    from surestep.callbacks.trackers.comet import CometCallback as CometCallback
    from surestep.callbacks.trackers.dvclive import DVCLiveCallback as DVCLiveCallback
    from surestep.callbacks.trackers.flyte import FlyteCallback as FlyteCallback
    from surestep.callbacks.trackers.kubeflow import KubeflowCallback as KubeflowCallback
    from surestep.callbacks.trackers.mlflow import DagsHubCallback as DagsHubCallback
    from surestep.callbacks.trackers.mlflow import MLflowCallback as MLflowCallback
    from surestep.callbacks.trackers.neptune import NeptuneCallback as NeptuneCallback
    from surestep.callbacks.trackers.swanlab import SwanLabCallback as SwanLabCallback
    from surestep.callbacks.trackers.tensorboard import TensorBoardCallback as TensorBoardCallback
    from surestep.callbacks.trackers.trackio import TrackioCallback as TrackioCallback
    from surestep.callbacks.trackers.wandb import WandbCallback as WandbCallback
    from surestep.compat.names import *  # noqa: F403 (every other name that the original's modules offer)
    from surestep.config.arguments import Seq2SeqTrainingArguments as Seq2SeqTrainingArguments
    from surestep.config.arguments import TrainingArguments as TrainingArguments
    from surestep.config.enums import IntervalStrategy as IntervalStrategy
    from surestep.config.enums import OptimizerNames as OptimizerNames
    from surestep.config.enums import SaveStrategy as SaveStrategy
    from surestep.config.enums import SchedulerType as SchedulerType
    from surestep.config.parser import HfArgumentParser as HfArgumentParser
    from surestep.data.collators.default import DefaultDataCollator as DefaultDataCollator
    from surestep.data.collators.default import default_data_collator as default_data_collator
    from surestep.data.collators.flattening import DataCollatorWithFlattening as DataCollatorWithFlattening
    from surestep.data.collators.language_modeling import (
        DataCollatorForLanguageModeling as DataCollatorForLanguageModeling,
    )
    from surestep.data.collators.multiple_choice import DataCollatorForMultipleChoice as DataCollatorForMultipleChoice
    from surestep.data.collators.padding import DataCollatorWithPadding as DataCollatorWithPadding
    from surestep.data.collators.permutation import (
        DataCollatorForPermutationLanguageModeling as DataCollatorForPermutationLanguageModeling,
    )
    from surestep.data.collators.seq2seq import DataCollatorForSeq2Seq as DataCollatorForSeq2Seq
    from surestep.data.collators.token_classification import (
        DataCollatorForTokenClassification as DataCollatorForTokenClassification,
    )
    from surestep.data.streams import ShuffledStream as ShuffledStream
    from surestep.errors import Interrupted as Interrupted
    from surestep.errors import SurestepError as SurestepError
    from surestep.losses.contrastive import ContrastiveLoss as ContrastiveLoss
    from surestep.losses.contrastive import InBatchContrastiveLoss as InBatchContrastiveLoss
    from surestep.losses.cross_entropy import CrossEntropyLoss as CrossEntropyLoss
    from surestep.losses.cross_entropy import TokenCrossEntropyLoss as TokenCrossEntropyLoss
    from surestep.losses.focal import FocalLoss as FocalLoss
    from surestep.losses.margins import ArcFaceLoss as ArcFaceLoss
    from surestep.losses.margins import CosFaceLoss as CosFaceLoss
    from surestep.losses.margins import CosineHead as CosineHead
    from surestep.losses.pair import LossSum as LossSum
    from surestep.losses.regression import HuberLoss as HuberLoss
    from surestep.losses.regression import MSELoss as MSELoss
    from surestep.losses.triplet import TripletLoss as TripletLoss
    from surestep.metrics.prediction import EvalLoopOutput as EvalLoopOutput
    from surestep.metrics.prediction import EvalPrediction as EvalPrediction
    from surestep.metrics.prediction import PredictionOutput as PredictionOutput
    from surestep.metrics.prediction import TrainOutput as TrainOutput
    from surestep.metrics.shards import load_predictions as load_predictions
    from surestep.runtime.random import seed_everything as seed_everything
    from surestep.trainer.search.backend import HPSearchBackend as HPSearchBackend
    from surestep.trainer.search.backend import default_hp_search_backend as default_hp_search_backend
    from surestep.trainer.search.best import BestRun as BestRun
    from surestep.trainer.search.best import default_compute_objective as default_compute_objective
    from surestep.trainer.search.space import default_hp_space_optuna as default_hp_space_optuna
    from surestep.trainer.search.space import default_hp_space_ray as default_hp_space_ray
    from surestep.trainer.search.space import default_hp_space_wandb as default_hp_space_wandb
    from surestep.trainer.seq2seq import Seq2SeqTrainer as Seq2SeqTrainer
    from surestep.trainer.trainer import Trainer as Trainer
    from surestep.training.callback import TrainerCallback as TrainerCallback
    from surestep.training.state import ExportableState as ExportableState
    from surestep.training.state import TrainerControl as TrainerControl
    from surestep.training.state import TrainerState as TrainerState


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name) or _of_the_original(name)
    if home is None:
        raise AttributeError(f"module 'surestep' has no attribute '{name}'")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def _of_the_original(name: str) -> str | None:
    """Return the home of any other name of the original's; raise for one that is left out, and say why."""
    if name.startswith("__"):
        return None
    table = importlib.import_module("surestep.compat.homes")
    why = table.reason(name)
    if why is not None:
        from surestep.errors import UnservedNameError

        raise UnservedNameError(why)
    home: str | None = table.offered().get(name)
    return home


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *importlib.import_module("surestep.compat.homes").offered()})
