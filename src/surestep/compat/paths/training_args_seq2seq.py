"""The names of the original's `training_args_seq2seq`. Written from `compat/homes.py`, not by hand."""

from surestep.config.arguments import Seq2SeqTrainingArguments as Seq2SeqTrainingArguments
