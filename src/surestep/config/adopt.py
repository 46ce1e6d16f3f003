"""Arguments that were made for the original, taken as ours."""

from __future__ import annotations

import dataclasses
from typing import Any

from surestep.config.arguments import Seq2SeqTrainingArguments, TrainingArguments
from surestep.errors import ArgumentError


def adopt_arguments(args: Any) -> TrainingArguments:
    """Return `args` if it is ours, else our arguments with the values of the original's.

    Fields and attributes that a subclass of the original's added are carried over, so that code which reads them finds
    them. What the original only derived from a default does not count as given by the user.
    """
    if isinstance(args, TrainingArguments):
        return args
    if not dataclasses.is_dataclass(args) or not hasattr(args, "per_device_train_batch_size"):
        raise ArgumentError(
            f"args is a {type(args).__name__}. Pass surestep.TrainingArguments(...), or the original's arguments."
        )
    kind = Seq2SeqTrainingArguments if hasattr(args, "predict_with_generate") else TrainingArguments
    names = {field.name for field in dataclasses.fields(kind)}
    # The original keeps one value under two names; today's is enough.
    names -= {"gradient_checkpointing", "gradient_checkpointing_kwargs"}
    adopted = kind(**{name: getattr(args, name) for name in names if hasattr(args, name)})
    adopted._given = frozenset()
    for name, value in vars(args).items():
        if not name.startswith("_") and name not in names and not hasattr(type(adopted), name):
            setattr(adopted, name, value)
    return adopted
