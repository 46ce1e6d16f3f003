"""What older scripts write: arguments of the constructor, and methods with fewer parameters."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from surestep.errors import UnknownArgumentError


def take_older_arguments(older: dict[str, Any], known: list[str], processing_class: Any) -> Any:
    """Return the processing class, which older scripts pass as `tokenizer`; refuse what was never an argument."""
    if "tokenizer" in older:
        tokenizer = older.pop("tokenizer")
        if processing_class is not None and tokenizer is not None:
            raise UnknownArgumentError("Trainer got tokenizer and processing_class. Pass processing_class alone.")
        warnings.warn("Trainer(tokenizer=...) is now called processing_class.", FutureWarning, stacklevel=4)
        processing_class = processing_class if tokenizer is None else tokenizer
    for name in older:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UnknownArgumentError(f"Trainer takes no argument '{name}'.{hint}")
    return processing_class


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
# How the trainer calls what older subclasses override: how many arguments by position, and which by name.
_CALLS: dict[str, tuple[int, tuple[str, ...]]] = {
    "training_step": (3, ()),
    "compute_loss": (2, ("num_items_in_batch",)),
    "log": (2, ()),
    "get_batch_samples": (3, ()),
    "save_model": (1, ("_internal_call",)),
    "_get_train_sampler": (1, ()),
    "_maybe_log_save_evaluate": (7, ("learning_rate",)),
}


def adapt_older_methods(trainer: Any) -> None:
    """Let overrides of an older form be called as today's: the arguments that they do not know are left out."""
    for name, (positional, named) in _CALLS.items():
        method = getattr(trainer, name)
        signature = inspect.signature(method)
        if not _fits(signature, positional, named):
            room = sum(parameter.kind in _POSITIONAL for parameter in signature.parameters.values())
            unknown = frozenset(named) - signature.parameters.keys()
            setattr(trainer, name, partial(_without, method, room, unknown))
            if name == "compute_loss" and unknown and trainer.loss_is_scaled_for_ga is None:
                # It never sees the item count, so that its loss is a mean over the micro-batch.
                trainer.loss_is_scaled_for_ga = False


def _fits(signature: inspect.Signature, positional: int, named: tuple[str, ...]) -> bool:
    try:
        signature.bind(*[None] * positional, **dict.fromkeys(named))
    except TypeError:
        return False
    return True


def _without(method: Callable[..., Any], room: int, unknown: frozenset[str], *positional: Any, **named: Any) -> Any:
    """Call `method` with what it has room for."""
    known = {name: value for name, value in named.items() if name not in unknown}
    return method(*positional[:room], **known)
