"""The names of the original's `hyperparameter_search`. Written from `compat/homes.py`, not by hand."""

from surestep.trainer.search.backend import default_hp_search_backend as default_hp_search_backend
from surestep.trainer.search.optuna_backend import OptunaBackend as OptunaBackend
from surestep.trainer.search.ray_backend import RayTuneBackend as RayTuneBackend
from surestep.trainer.search.wandb_backend import WandbBackend as WandbBackend
