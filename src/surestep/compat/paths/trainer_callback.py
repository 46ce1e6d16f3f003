"""The names of the original's `trainer_callback`. Written from `compat/homes.py`, not by hand."""

from surestep.callbacks.early_stopping import EarlyStoppingCallback as EarlyStoppingCallback
from surestep.callbacks.flow import DefaultFlowCallback as DefaultFlowCallback
from surestep.callbacks.printer import PrinterCallback as PrinterCallback
from surestep.callbacks.progress import ProgressCallback as ProgressCallback
from surestep.compat.helpers.callbacks import CallbackHandler as CallbackHandler
from surestep.training.callback import TrainerCallback as TrainerCallback
from surestep.training.state import ExportableState as ExportableState
from surestep.training.state import TrainerControl as TrainerControl
from surestep.training.state import TrainerState as TrainerState
