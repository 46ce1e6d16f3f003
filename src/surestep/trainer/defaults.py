"""What a trainer has without being given it: its collator, its callbacks, what smooths its labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from surestep.callbacks.flow import DefaultFlowCallback
from surestep.data.collators.default import default_data_collator
from surestep.logs import get_logger

if TYPE_CHECKING:
    from surestep.callbacks.display import DisplayCallback
    from surestep.config.arguments import TrainingArguments
    from surestep.losses.smoothing import LabelSmoother

    # The bar, or the table of a notebook; found when it is asked for.
    DEFAULT_PROGRESS_CALLBACK: type[DisplayCallback]

logger = get_logger(__name__)

# What every trainer begins with. A script may add to the list before it makes one.
DEFAULT_CALLBACKS: list[Any] = [DefaultFlowCallback]


def default_collator(processing_class: Any) -> Callable[[list[Any]], Any]:
    """Return the collator that pads with a tokenizer (or sequence feature extractor), else the one that stacks."""
    # Image processors pad pictures, and processors hand on to their tokenizer; neither says on which side it pads.
    pads = callable(getattr(processing_class, "pad", None)) and hasattr(processing_class, "padding_side")
    if pads:
        from surestep.data.collators.padding import DataCollatorWithPadding

        return DataCollatorWithPadding(processing_class)
    return default_data_collator


def default_callbacks(args: Any, given: Sequence[Any]) -> list[Any]:
    """Return the callbacks of a trainer in the original's order: the flow, trackers, those given, and the progress."""
    from surestep.callbacks.trackers.jsonl import JsonlCallback
    from surestep.callbacks.trackers.registry import tracker_callbacks

    return [*DEFAULT_CALLBACKS, JsonlCallback, *tracker_callbacks(args.report_to), *given, _progress(args)]


def _progress(args: Any) -> type:
    if args.disable_tqdm:
        from surestep.callbacks.printer import PrinterCallback

        return PrinterCallback
    from surestep.callbacks.notebook import default_progress

    return default_progress()


def __getattr__(name: str) -> Any:
    if name != "DEFAULT_PROGRESS_CALLBACK":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from surestep.callbacks.notebook import default_progress

    return default_progress()


def smoother_of(args: TrainingArguments, model: Any) -> LabelSmoother | None:
    """Return what smooths the labels, where the arguments ask for it and the loss is over one class of several."""
    if not args.label_smoothing_factor:
        return None
    if getattr(getattr(model, "config", None), "problem_type", None) == "multi_label_classification":
        logger.warning("label_smoothing_factor is set, but a multi-label loss has none: it is left out.")
        return None
    from surestep.losses.smoothing import LabelSmoother

    return LabelSmoother(args.label_smoothing_factor)


def copies_ahead(args: TrainingArguments) -> bool:
    """Say whether batches are copied to the device while the host goes on; only pinned memory can be."""
    asked = args.accelerator_config.non_blocking  # type: ignore[union-attr]  # a configuration once settled
    if asked and not args.dataloader_pin_memory and args.device.type != "cpu":
        logger.warning(
            "accelerator_config has non_blocking=True, and dataloader_pin_memory=False: the host waits for every copy. "
            "Set dataloader_pin_memory=True."
        )
    return bool(asked)
