"""The names of the original's `integration_utils` and of `neftune`. Written from `compat/homes.py`, not by hand."""

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
from surestep.compat.helpers.trackers import INTEGRATION_TO_CALLBACK as INTEGRATION_TO_CALLBACK
from surestep.compat.helpers.trackers import default_logdir as default_logdir
from surestep.compat.helpers.trackers import (
    get_available_reporting_integrations as get_available_reporting_integrations,
)
from surestep.compat.helpers.trackers import get_reporting_integration_callbacks as get_reporting_integration_callbacks
from surestep.engine.additions import activate_neftune as activate_neftune
from surestep.engine.additions import deactivate_neftune as deactivate_neftune
from surestep.engine.additions import neftune_post_forward_hook as neftune_post_forward_hook
