"""The names of the original's `trainer_seq2seq`. Written from `compat/homes.py`, not by hand."""

from surestep.trainer.seq2seq import Seq2SeqTrainer as Seq2SeqTrainer
