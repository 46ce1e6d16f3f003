"""What a trainer has without being told: its collator and its callbacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from surestep.data.collators.default import default_data_collator


def default_collator(processing_class: Any) -> Callable[[list[Any]], Any]:
    """Return the collator that pads with a tokenizer (or sequence feature extractor), else the one that stacks."""
    if processing_class is not None and callable(getattr(processing_class, "pad", None)):
        from surestep.data.collators.padding import DataCollatorWithPadding

        return DataCollatorWithPadding(processing_class)
    return default_data_collator


def default_callbacks(args: Any, given: Sequence[Any]) -> list[Any]:
    """Return the callbacks after the flow, in the original's order: trackers, those given, and the progress."""
    from surestep.callbacks.trackers.jsonl import JsonlCallback
    from surestep.callbacks.trackers.registry import tracker_callbacks

    return [JsonlCallback, *tracker_callbacks(args.report_to), *given, _progress(args)]


def _progress(args: Any) -> type:
    if args.disable_tqdm:
        from surestep.callbacks.printer import PrinterCallback

        return PrinterCallback
    from surestep.callbacks.notebook import default_progress

    return default_progress()
