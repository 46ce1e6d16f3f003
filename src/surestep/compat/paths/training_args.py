"""The names of the original's `training_args`. Written from `compat/homes.py`, not by hand."""

from surestep.compat.helpers.parsing import log_levels as log_levels
from surestep.compat.helpers.parsing import str_to_bool as str_to_bool
from surestep.compat.helpers.parsing import trainer_log_levels as trainer_log_levels
from surestep.compat.helpers.trackers import default_logdir as default_logdir
from surestep.config.arguments import TrainingArguments as TrainingArguments
from surestep.config.enums import OptimizerNames as OptimizerNames
from surestep.config.enums import ParallelMode as ParallelMode
