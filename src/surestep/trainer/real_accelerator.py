"""A real `Accelerator` for what the engine does not know: bound to the run's process, device and precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from surestep.errors import NotServedError
from surestep.optional import require
from surestep.runtime.accelerate_state import process_state

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer


def make_accelerator(trainer: Trainer, wanted: str) -> Any:
    """Return an `Accelerator` that was given neither model nor optimizer; `wanted` is the member asked for."""
    purpose = f"trainer.accelerator.{wanted}"
    accelerate: Any = require("accelerate", purpose)
    device, precision = trainer.engine.device, trainer.engine.precision.name
    process_state(device, purpose)
    known = accelerate.state.AcceleratorState._shared_state
    if known and known.get("_mixed_precision") != precision:
        # One state for the whole process, left by an earlier trainer of another precision.
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=False)
    config = trainer.args.accelerator_config
    loading = accelerate.utils.DataLoaderConfiguration(
        split_batches=config.split_batches,  # type: ignore[union-attr]
        dispatch_batches=config.dispatch_batches,  # type: ignore[union-attr]
        even_batches=trainer.accelerator.even_batches,
        use_seedable_sampler=config.use_seedable_sampler,  # type: ignore[union-attr]
        non_blocking=config.non_blocking,  # type: ignore[union-attr]
    )
    try:
        return accelerate.Accelerator(
            cpu=device.type == "cpu", mixed_precision=precision, dataloader_config=loading, device_placement=True
        )
    except (ValueError, RuntimeError, ImportError) as error:
        raise NotServedError(
            f"{purpose} is answered by a real Accelerator, which cannot be made for {precision} on {device}: {error}"
        ) from error
