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


# What today's callers hand over beyond what the methods of older subclasses take.
_NEWER = {"training_step": "num_items_in_batch", "compute_loss": "num_items_in_batch"}


def adapt_older_methods(trainer: Any) -> None:
    """Let overrides of an older form be called as today's: the argument that they do not know is left out."""
    for name, argument in _NEWER.items():
        method = getattr(trainer, name)
        if not _takes(method, argument):
            setattr(trainer, name, partial(_without, method, argument))


def _takes(method: Callable[..., Any], argument: str) -> bool:
    parameters = inspect.signature(method).parameters.values()
    open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    return open_ended or any(parameter.name == argument for parameter in parameters)


def _without(method: Callable[..., Any], argument: str, *positional: Any, **named: Any) -> Any:
    """Call `method` with what it knows: the newer argument, the last one by position, is dropped."""
    named.pop(argument, None)
    room = len(inspect.signature(method).parameters)
    return method(*positional[:room], **named)
