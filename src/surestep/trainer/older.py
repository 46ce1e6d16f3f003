"""What was written for the original: older arguments, overrides of an older form, overrides that nothing calls."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from surestep.errors import NotServedError, UnknownArgumentError


def take_older_arguments(older: dict[str, Any], known: list[str], processing_class: Any) -> Any:
    """Return the processing class, which older scripts pass as `tokenizer`; refuse what was never an argument."""
    if "tokenizer" in older:
        tokenizer = older.pop("tokenizer")
        if processing_class is not None and tokenizer is not None:
            raise UnknownArgumentError("Trainer got tokenizer and processing_class. Pass processing_class alone.")
        warnings.warn("Trainer(tokenizer=...) is now called processing_class.", FutureWarning, stacklevel=3)
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
    "create_scheduler": (2, ()),
    "save_model": (1, ("_internal_call",)),
    "_get_train_sampler": (1, ()),
    "_maybe_log_save_evaluate": (7, ("learning_rate",)),
}
# Methods of the original (also of older ones) that nothing here calls, and what to write in their place.
_LOOP = "override training_step or get_batch_samples, or run the loop yourself: `with trainer.steps() as steps`"
_GRADIENTS = "change the gradients in a callback's on_pre_optimizer_step"
_DISTRIBUTED = "training on several devices is not served yet (scope rows C1-C4)"
_UNCALLED = {
    "_run_epoch": _LOOP,
    "_init_training_state": _LOOP,
    "_prepare_for_training": _LOOP,
    "_clip_grad_norm": _GRADIENTS,
    "_get_grad_norm": _GRADIENTS,
    "_get_learning_rate": "override log, which is given the learning rate",
    "_build_accelerator_args": "override create_accelerator_and_postprocess",
    "_wrap_model": "wrap the model before it is given to the trainer",
    "_validate_args": "check in __init__, before or after super().__init__",
    "_update_auto_batch_size": "set per_device_train_batch_size",
    "_load_callback_state": "give the callback state() and from_state()",
    "_issue_warnings_after_load": "override _load_from_checkpoint",
    "_rotate_checkpoints": "set save_total_limit, or remove folders in a callback's on_save",
    "_sorted_checkpoints": "set save_total_limit, or remove folders in a callback's on_save",
    "prediction_loop": "override evaluation_loop",
    "_nested_gather": "override evaluation_loop",
    "_hp_search_setup": "searching is not served yet (scope row D3)",
    "_report_to_hp_search": "searching is not served yet (scope row D3)",
    "_push_from_checkpoint": "uploads are not served yet (scope row B13)",
    "_prepare_context_parallel_inputs": _DISTRIBUTED,
    "get_sp_size": _DISTRIBUTED,
    "get_cp_size": _DISTRIBUTED,
    "get_tp_size": _DISTRIBUTED,
}


def refuse_uncalled_overrides(trainer: Any) -> None:
    """Refuse a subclass that overrides what nothing here calls: it would be bypassed in silence."""
    kinds = [kind for kind in type(trainer).__mro__ if not kind.__module__.startswith("surestep.")]
    for name, instead in _UNCALLED.items():
        for kind in kinds:
            if name in vars(kind):
                raise NotServedError(
                    f"{kind.__name__} overrides {name}, which nothing calls in this trainer. In its place: {instead}."
                )


def adapt_older_methods(trainer: Any) -> None:
    """Let overrides of an older form be called as today's: the arguments that they do not know are left out."""
    refuse_uncalled_overrides(trainer)
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
