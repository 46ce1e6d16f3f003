"""Finding a batch size that fits (`auto_find_batch_size`): on a memory error, a tenth less, from a clean state."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from surestep.data.hidden import generators_in, put_back, states_of
from surestep.errors import SurestepError
from surestep.logs import get_logger
from surestep.runtime.device import empty_cache
from surestep.runtime.memory import is_out_of_memory
from surestep.runtime.random import capture_random_state, restore_random_state
from surestep.training.state import CallbackStates

if TYPE_CHECKING:
    from surestep.engine.engine import Engine
    from surestep.trainer.trainer import Trainer

logger = get_logger(__name__)
T = TypeVar("T")


class NoBatchSizeFitsError(SurestepError, RuntimeError):
    """Not even one sample fits into memory."""


class Beginning:
    """What training began with: weights (on the host), what updates them, callbacks, and all random generators."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._weights = [(tensor.detach().to("cpu", copy=True), tensor.requires_grad) for tensor in self._tensors()]
        self._updates = {name: copy.deepcopy(part.state_dict()) for name, part in self._updating().items()}
        self._scaler = copy.deepcopy(trainer.engine.precision.state_dict())
        self._callbacks = CallbackStates(trainer.callback_handler.callbacks)
        self._random = capture_random_state()
        self._held = states_of(self._generators())

    def put_back(self) -> None:
        """Make the trainer what it was; what it made itself for the failed attempt is dropped."""
        trainer, updating = self._trainer, self._updating()
        if trainer.model_init is None:
            self.put_weights_back()
        for name in ("optimizer", "lr_scheduler"):
            if name not in self._updates:
                setattr(trainer, name, None)
            elif name in updating:
                updating[name].load_state_dict(copy.deepcopy(self._updates[name]))
        if self._scaler is not None:
            trainer.engine.precision.load_state_dict(copy.deepcopy(self._scaler))
        self._callbacks.put_back()
        trainer.control, trainer.current_flos = type(trainer.control)(), 0.0
        restore_random_state(self._random)
        put_back(self._generators(), self._held)

    def put_weights_back(self) -> None:
        """Make parameters and buffers what they were, without gradients."""
        with torch.no_grad():
            for tensor, (value, trained) in zip(self._tensors(), self._weights, strict=True):
                tensor.requires_grad_(trained)
                tensor.copy_(value)
                tensor.grad = None

    def _generators(self) -> dict[str, Any]:
        """Return the generators that the data holds for itself."""
        trainer, found = self._trainer, dict[str, Any]()
        for name in ("train_dataset", "eval_dataset", "data_collator"):
            found.update(generators_in(name, getattr(trainer, name)))
        return found

    def _tensors(self) -> list[torch.Tensor]:
        """Return parameters and buffers, those as well that no state dict names."""
        model = self._trainer.model
        return [*model.parameters(), *model.buffers()]

    def _updating(self) -> dict[str, Any]:
        parts = {"optimizer": self._trainer.optimizer, "lr_scheduler": self._trainer.lr_scheduler}
        return {name: part for name, part in parts.items() if part is not None}


def is_too_large(engine: Engine, error: Exception) -> bool:
    """Say whether an error means that a smaller batch may do; among several ranks, all must know of it."""
    known = engine.ranks == 1 or error is getattr(engine, "known_failure", None)
    return known and is_out_of_memory(error)


def find_batch_size(
    run: Callable[[int], T],
    start: int,
    device: torch.device,
    *,
    reset: Callable[[], None],
    too_large: Callable[[Exception], bool] = is_out_of_memory,
) -> T:
    """Call `run(batch_size)` with ever smaller sizes until memory suffices, and return what it returns.

    The rule is the original's: nine tenths of the size that failed. `reset` is called after each failure, so that no
    step of a failed attempt is left in the result.
    """
    size = start
    while size > 0:
        try:
            return run(size)
        except Exception as error:
            if not too_large(error):
                raise
            smaller = int(size * 0.9)
            logger.warning("A batch of %d samples does not fit into memory; trying %d.", size, smaller)
            size = smaller
        reset()
        gc.collect()
        empty_cache(device)
    raise NoBatchSizeFitsError(
        f"No batch size fits into memory, from {start} down to 1. Use a smaller model, activation_checkpointing=True, "
        "bf16=True, or shorter samples."
    )


@contextmanager
def training_size_only() -> Iterator[None]:
    """Raise a memory error of an evaluation as what it is: another training batch size would not help it."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise NoBatchSizeFitsError(
            "Evaluation ran out of memory, and auto_find_batch_size changes the training batch size only. Set a "
            "smaller per_device_eval_batch_size, or eval_accumulation_steps."
        ) from error
