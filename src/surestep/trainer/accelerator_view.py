"""`trainer.accelerator`: what subclasses written for the original ask of it, answered by the engine."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from surestep.errors import NotServedError

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer


class AcceleratorView:
    """The members of an `Accelerator` that make sense on one device. Anything else is refused by name."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

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
    def gradient_accumulation_steps(self) -> int:
        """How many micro-batches make a step, as the arguments say."""
        return self._trainer.args.gradient_accumulation_steps

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Run backward from a loss."""
        self._trainer.engine.backward(loss, **kwargs)

    def clip_grad_norm_(self, parameters: Any, max_norm: float, norm_type: float = 2.0) -> Tensor:
        """Clip gradients to a norm and return the norm from before."""
        engine = self._trainer.engine
        if engine.optimizer is not None:
            engine.precision.unscale(engine.optimizer)
        return nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)

    def unwrap_model(self, model: nn.Module, *_: Any, **__: Any) -> nn.Module:
        """Return the user's model from inside a prepared one."""
        return self._trainer.engine.unwrap(model)

    def prepare(self, *objects: Any, **_: Any) -> Any:
        """Return the objects as they are: the engine has prepared what needs it."""
        return objects[0] if len(objects) == 1 else objects

    def prepare_model(self, model: nn.Module, *_: Any, **__: Any) -> nn.Module:
        """Place a further model, such as a teacher, on the device."""
        return model.to(self.device)

    def gather(self, value: Any) -> Any:
        """Return the samples of all ranks."""
        return self._trainer.engine.strategy.gather(value)

    def gather_for_metrics(self, value: Any, *_: Any, **__: Any) -> Any:
        """Return the samples of all ranks, none twice."""
        return self._trainer.engine.strategy.gather(value)

    def reduce(self, value: Tensor, reduction: str = "sum", scale: float = 1.0) -> Tensor:
        """Return the sum or mean of a tensor over the ranks, times `scale`: over one rank, the tensor."""
        del reduction
        return value * scale

    def pad_across_processes(self, value: Any, *_: Any, **__: Any) -> Any:
        """Return the value: there is no other process whose shape could differ."""
        return value

    def wait_for_everyone(self) -> None:
        """Wait for every process."""
        self._trainer._world.barrier()

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which gradients are not exchanged."""
        return self._trainer.engine.strategy.accumulating(model, last=False)

    def autocast(self, *_: Any, **__: Any) -> AbstractContextManager[Any]:
        """Return the autocast context of the precision, for code that runs outside the model's forward."""
        dtype = getattr(self._trainer.engine.precision, "dtype", None)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotServedError(
            f"trainer.accelerator.{name} is not served yet (scope row B2). On one device, use trainer.engine: "
            "backward, unwrap, strategy, precision."
        )
