"""`trainer.accelerator`: what subclasses written for the original ask of it.

The view owns nothing but `even_batches`. Processes are the world's, model, gradients and precision the engine's. What
depends on neither model nor gradients is handed to a real `Accelerator` of the same process and precision, made when it
is first needed. What only makes sense for an accelerator that runs the training itself is refused by name.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from surestep.errors import NotServedError
from surestep.logs import get_logger

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer

logger = get_logger(__name__)
_LOOP = "The trainer's loop accumulates: set gradient_accumulation_steps and read trainer.accelerator.sync_gradients"
_STORE = "The trainer keeps checkpoints: override _save_checkpoint, with trainer.save_extra_state and load_extra_state"
_STEP = "The engine steps the optimizer: step a further one in training_step, where sync_gradients is True"
# A real accelerator would answer from a model, optimizer and loader that it was never given.
_REFUSED = {
    "accumulate": _LOOP,
    "gradient_state": _LOOP,
    "join_uneven_inputs": _LOOP,
    "skip_first_batches": "Resuming seeks by itself: train(resume_from_checkpoint=...)",
    "trigger_sync_in_backward": _LOOP,
    "save_state": _STORE,
    "load_state": _STORE,
    "register_for_checkpointing": _STORE,
    "register_save_state_pre_hook": _STORE,
    "register_load_state_pre_hook": _STORE,
    "save_model": "Call trainer.save_model",
    "save_iteration": _STORE,
    "prepare_optimizer": _STEP,
    "prepare_scheduler": _STEP,
    "lomo_backward": 'Set optim="lomo" or "adalomo"',
    "scaler": "The engine holds the loss scale: trainer.engine.precision",
    "step": "Read trainer.state.global_step",
}


class AcceleratorView:
    """The members of an `Accelerator`, served by the trainer's engine and world."""

    # No `__dict__`: a setting that nothing reads is refused when it is set.
    __slots__ = ("_real", "_trainer", "even_batches")

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._real: Any = None
        # Subclasses set it. No sample is ever given to two processes here, whatever it says.
        self.even_batches: bool = trainer.args.accelerator_config.even_batches  # type: ignore[union-attr]

    def announce(self) -> None:
        """Make the real accelerator now for a subclass of somebody else's that has imported accelerate.

        Such libraries call functions of accelerate, which look for the state that the first `Accelerator` leaves.
        """
        outside = any(not kind.__module__.startswith("surestep.") for kind in type(self._trainer).__mro__[:-1])
        if outside and "accelerate.state" in sys.modules:
            from surestep.trainer.real_accelerator import make_accelerator

            try:
                self._real = make_accelerator(self._trainer, "state")
            except NotServedError as error:
                logger.info("%s", error)

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self._trainer.engine.device

    @property
    def num_processes(self) -> int:
        """How many processes train."""
        return self._trainer._world.size

    @property
    def process_index(self) -> int:
        """The rank of this process."""
        return self._trainer._world.rank

    @property
    def local_process_index(self) -> int:
        """The rank of this process on its machine."""
        return self._trainer._world.local_rank

    @property
    def is_main_process(self) -> bool:
        """Whether this process speaks for all."""
        return self._trainer._world.is_main

    @property
    def is_local_main_process(self) -> bool:
        """Whether this process speaks for its machine."""
        return self._trainer._world.is_local_main

    @property
    def mixed_precision(self) -> str:
        """The number format: `no`, `bf16` or `fp16`."""
        return self._trainer.engine.precision.name

    @property
    def parallelism_config(self) -> Any:
        """The sizes of further kinds of parallelism; None where there are none."""
        return self._trainer.args.parallelism_config

    @property
    def gradient_accumulation_steps(self) -> int:
        """1, as in the original: the loop accumulates, and `backward` divides nothing."""
        return 1

    @property
    def sync_gradients(self) -> bool:
        """Whether the micro-batch at hand is the last of its step; True outside of steps."""
        return self._trainer.engine.on_last_of_step

    @property
    def optimizer_step_was_skipped(self) -> bool:
        """Whether the last step was left out because a gradient overflowed."""
        return not self._trainer.engine.stepped

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Run backward from a loss."""
        self._trainer.engine.backward(loss, **kwargs)

    def unscale_gradients(self, optimizer: Any = None) -> None:
        """Bring the gradients of the trainer's optimizer to their true size."""
        engine = self._trainer.engine
        if optimizer is not None and optimizer is not engine.optimizer:
            raise NotServedError(f"unscale_gradients got an optimizer that is not the trainer's. {_STEP}.")
        if engine.optimizer is not None:
            engine.precision.unscale(engine.optimizer)

    def clip_grad_norm_(self, parameters: Any, max_norm: float, norm_type: float = 2.0) -> Tensor:
        """Clip gradients to a norm and return the norm from before."""
        self.unscale_gradients()
        return nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)

    def clip_grad_value_(self, parameters: Any, clip_value: float) -> None:
        """Clip every gradient to an interval around 0."""
        self.unscale_gradients()
        nn.utils.clip_grad_value_(parameters, clip_value)

    def unwrap_model(
        self, model: nn.Module, keep_fp32_wrapper: bool = True, keep_torch_compile: bool = True
    ) -> nn.Module:
        """Return the user's model from inside a prepared one; a compiled one stays so unless told otherwise.

        The precision around a model's forward goes by itself when training ends, so `keep_fp32_wrapper` is not needed.
        """
        del keep_fp32_wrapper
        inner = self._trainer.engine.unwrap(model)
        return model if keep_torch_compile and getattr(model, "_orig_mod", None) is inner else inner

    def get_state_dict(self, model: nn.Module, unwrap: bool = True) -> dict[str, Any]:
        """Return the weights of a model under the names that the user's model has for them."""
        return (self._trainer.engine.unwrap(model) if unwrap else model).state_dict()

    def prepare(self, *objects: Any, device_placement: list[bool] | None = None) -> Any:
        """Return models, loaders and the trainer's own optimizer ready for use; anything else as it is."""
        places = [True] * len(objects) if device_placement is None else device_placement
        prepared = tuple(self._prepared(item, place) for item, place in zip(objects, places, strict=True))
        return prepared[0] if len(prepared) == 1 else prepared

    def _prepared(self, item: Any, place: bool) -> Any:
        if isinstance(item, nn.Module):
            return self.prepare_model(item, device_placement=place)
        if isinstance(item, DataLoader):
            return self.prepare_data_loader(item, device_placement=place)
        own = (self._trainer.optimizer, self._trainer.lr_scheduler)
        if isinstance(item, Optimizer | LRScheduler) and not any(item is known for known in own):
            name = "prepare_optimizer" if isinstance(item, Optimizer) else "prepare_scheduler"
            raise _refusal(name)
        return item

    def prepare_model(
        self, model: nn.Module, device_placement: bool | None = None, evaluation_mode: bool = False
    ) -> nn.Module:
        """Place a further model, such as a teacher, and let it compute in the trainer's precision.

        The trainer's own model comes back as the engine has prepared it; the engine alone does that.
        """
        del evaluation_mode
        trainer = self._trainer
        if trainer.engine.unwrap(model) is trainer.engine.unwrap(trainer.model):
            return trainer.model_wrapped if trainer.is_in_train else model
        if device_placement is not False:
            trainer._move_model_to_device(model, self.device)
        trainer.engine.precision.apply_to(model)
        return model

    def prepare_data_loader(
        self, data_loader: Any, device_placement: bool | None = None, slice_fn_for_dispatch: Any = None
    ) -> Any:
        """Return a loader whose order follows from seed and epoch, of this rank's share, with batches on the device."""
        from surestep.data.placed import place_loader

        del slice_fn_for_dispatch
        trainer = self._trainer
        device = None if device_placement is False else self.device
        return place_loader(
            data_loader,
            seed=trainer._data_seed(),
            device=device,
            world=trainer._world,
            split=trainer._splits(),
            non_blocking=trainer._non_blocking,
        )

    def gather(self, value: Any) -> Any:
        """Return the samples of all ranks."""
        return self._trainer.engine.strategy.gather(value)

    def gather_for_metrics(self, value: Any, use_gather_object: bool = False) -> Any:
        """Return the samples of all ranks, none twice."""
        del use_gather_object
        return self._trainer.engine.strategy.gather(value)

    def reduce(self, value: Any, reduction: str = "sum", scale: float = 1.0) -> Any:
        """Return the sum or mean of a tensor over the ranks: over one, the tensor. Only an XLA device scales."""
        return value if self.num_processes == 1 else self._answer("reduce")(value, reduction, scale)

    def pad_across_processes(self, value: Any, dim: int = 0, pad_index: int = 0, pad_first: bool = False) -> Any:
        """Return the value, padded to the longest of all ranks along `dim`: with one rank, as it is."""
        return (
            value if self.num_processes == 1 else self._answer("pad_across_processes")(value, dim, pad_index, pad_first)
        )

    def wait_for_everyone(self) -> None:
        """Wait for every process."""
        self._trainer._world.barrier()

    def print(self, *values: Any, **options: Any) -> None:
        """Print, on one process of each machine."""
        if self.is_local_main_process:
            print(*values, **options)  # noqa: T201 (printing is what it is for)

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which gradients are not exchanged."""
        return self._trainer.engine.strategy.accumulating(model)

    def autocast(self, autocast_handler: Any = None) -> AbstractContextManager[Any]:
        """Return the autocast context of the precision, for code that runs outside the model's forward."""
        dtype = getattr(self._trainer.engine.precision, "dtype", None)
        if dtype is None:
            return nullcontext()
        enabled, cache = getattr(autocast_handler, "enabled", True), getattr(autocast_handler, "cache_enabled", None)
        return torch.autocast(self.device.type, dtype, enabled=enabled, cache_enabled=cache)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in _REFUSED:
            raise _refusal(name)
        return self._answer(name)

    def _answer(self, name: str) -> Any:
        """Return the member of the real accelerator, which is made when it is first needed."""
        if self._real is None:
            from surestep.trainer.real_accelerator import make_accelerator

            self._real = make_accelerator(self._trainer, name)
        return getattr(self._real, name)


def _refusal(name: str) -> NotServedError:
    return NotServedError(f"trainer.accelerator.{name} is not served. {_REFUSED[name]}.")
