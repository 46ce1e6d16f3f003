"""The names of the original's `optimization`. Written from `compat/homes.py`, not by hand."""

from surestep.compat.helpers.adamw import AdamW as AdamW
from surestep.optim.adafactor import Adafactor as Adafactor
from surestep.optim.adafactor import AdafactorSchedule as AdafactorSchedule
from surestep.optim.adafactor import get_adafactor_schedule as get_adafactor_schedule
from surestep.optim.greedy import GreedyLR as GreedyLR
from surestep.optim.greedy import StreamingAverage as StreamingAverage
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
