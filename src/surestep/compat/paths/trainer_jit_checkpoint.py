"""The names of the original's `trainer_jit_checkpoint`. Written from `compat/homes.py`, not by hand."""

from surestep.callbacks.jit_checkpoint import JITCheckpointCallback as JITCheckpointCallback
