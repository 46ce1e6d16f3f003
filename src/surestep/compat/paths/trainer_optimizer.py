"""The names of the original's `trainer_optimizer`. Written from `compat/homes.py`, not by hand."""

from surestep.optim.build import is_optimizer_factory as is_optimizer_factory
