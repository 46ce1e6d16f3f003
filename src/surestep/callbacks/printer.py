"""The log on the standard output, entry by entry."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from surestep.training.callback import TrainerCallback
from surestep.training.state import TrainerControl, TrainerState


class PrinterCallback(TrainerCallback):
    """Prints every entry of the log as a dict, floats to four digits, on one process of each machine.

    The lines are those of the original; unlike there, the entry itself is left as it is.
    """

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Print the entry, without the count of operations."""
        if state.is_local_process_zero and logs is not None:
            shown = {name: _short(value) for name, value in logs.items() if name != "total_flos"}
            sys.stdout.write(f"{shown}\n")


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value
