"""The whole model on every rank, each with its own micro-batches; gradients are averaged over the ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from surestep.errors import NotServedError
from surestep.runtime import collectives
from surestep.runtime.world import World

# Gradients that are exchanged by hand go in pieces of about this many bytes.
_PIECE = 25 * 2**20


class DataParallel:
    """Torch's `DistributedDataParallel`: exchange overlaps with the last backward of a step.

    `options` are keywords of torch's class (`bucket_cap_mb`, `find_unused_parameters`, ...). In a step in which some
    rank has no micro-batch, nothing overlaps: the ranks that have one call `alone(model)`, and `exchange` brings the
    gradients together on all of them.
    """

    precisions = frozenset({"no", "bf16", "fp16", "fp8"})

    def __init__(self, world: World, device: torch.device, options: Mapping[str, Any]) -> None:
        self.world = world
        self.device = device
        self._options = dict(options)

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return the model wrapped, its weights those of the main process; one with nothing to train as it is."""
        if isinstance(model, DistributedDataParallel) or not any(p.requires_grad for p in model.parameters()):
            return model
        own = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=own, **self._options)

    def unwrap(self, model: nn.Module) -> nn.Module:
        """Return the user's model from inside torch's wrapper, or inside what `torch.compile` made."""
        inner = getattr(model, "_orig_mod", model)
        if isinstance(inner, DistributedDataParallel):
            inner = inner.module
        return inner if inner is model else self.unwrap(inner)

    def alone(self, model: nn.Module) -> nn.Module:
        """Return the model to call where the ranks do not call it equally often: it exchanges nothing."""
        wrapped = getattr(model, "_orig_mod", model)
        return self.unwrap(model) if isinstance(wrapped, DistributedDataParallel) else model

    def accumulating(self, model: nn.Module) -> AbstractContextManager[None]:
        """Return the context of a micro-batch before the last of its step: gradients are not exchanged in it."""
        wrapped = getattr(model, "_orig_mod", model)
        return wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else nullcontext()

    def level(self, model: nn.Module) -> None:
        """Give every rank the main process's buffers, unless `broadcast_buffers=False` lets each keep its own."""
        if self._options.get("broadcast_buffers", True):
            for buffer in self.unwrap(model).buffers():
                dist.broadcast(buffer, src=0)

    def exchange(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients over the ranks by hand; one that no rank has stays None, one that some lack is 0."""
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        has = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.uint8, device=self.device)
        dist.all_reduce(has, op=dist.ReduceOp.MAX)
        grads = []
        for parameter, used in zip(trained, has.tolist(), strict=True):
            if used:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                grads.append(parameter.grad)
        for piece in _pieces(grads):
            flat = torch.cat([grad.reshape(-1) for grad in piece])
            dist.all_reduce(flat)
            flat /= self.world.size
            for grad, averaged in zip(piece, torch.split(flat, [grad.numel() for grad in piece]), strict=True):
                grad.copy_(averaged.view_as(grad))

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over the ranks."""
        total = value.clone()
        dist.all_reduce(total)
        return total

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a scalar over the ranks."""
        return self.sum(value) / self.world.size

    def gather(self, value: Any, *, padding: int = -100) -> Any:
        """Return the samples of all ranks, one rank after the other; a rank that has none gives None.

        Where second dimensions differ, shorter tensors are filled up on the right with `padding`.
        """
        return collectives.gather_samples(value, padding=padding)

    def gather_objects(self, value: Any) -> list[Any]:
        """Return the object of every rank, by rank."""
        return collectives.gather_objects(value)

    def agree(self, number: int) -> list[int]:
        """Return a number of the host from every rank."""
        return [one for (one,) in collectives.agree([number])]


class ByHand(DataParallel):
    """The same without torch's wrapper: for an engine that exchanges gradients after backward, in every step."""

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return the model as it is, its weights and buffers those of the main process."""
        meeting = [name for name, module in model.named_modules() if isinstance(module, nn.SyncBatchNorm)]
        if meeting:
            raise NotServedError(
                f"auto_find_batch_size=True on {self.world.size} processes, and '{meeting[0]}' is a SyncBatchNorm: its "
                "forward waits for the other processes, one of which may have run out of memory. Find the batch size "
                "with one process, and write it as per_device_train_batch_size."
            )
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.detach(), src=0)
        return model


def _pieces(grads: list[Tensor]) -> Iterable[list[Tensor]]:
    """Cut gradients into runs of one dtype and of about `_PIECE` bytes."""
    piece: list[Tensor] = []
    size = 0
    for grad in grads:
        if piece and (grad.dtype != piece[0].dtype or size >= _PIECE):
            yield piece
            piece, size = [], 0
        piece.append(grad)
        size += grad.numel() * grad.element_size()
    if piece:
        yield piece
