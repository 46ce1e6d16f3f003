"""CodeCarbon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from surestep.callbacks.trackers.reporter import Reporter
from surestep.callbacks.trackers.tables import drop_unfinished
from surestep.errors import NotServedError
from surestep.logs import get_logger
from surestep.optional import require
from surestep.training.state import TrainerControl, TrainerState

_logger = get_logger(__name__)


class CodeCarbonCallback(Reporter):
    """Estimates the energy and emissions of a training, in `<output_dir>/emissions.csv`: one line for each process.

    The line is brought up to date with each checkpoint, so that what a killed process used is known, and a resumed
    training adds one of its own. What the emissions are depends on the place: `CODECARBON_COUNTRY_ISO_CODE` ("FRA")
    names it; where it is not set, the client asks a server where this machine is. It reads the other `CODECARBON_*`.
    """

    name = "codecarbon"
    package = "codecarbon"

    def __init__(self, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        if torch.version.hip:
            raise NotServedError(
                "report_to='codecarbon': CodeCarbon does not measure AMD's ROCm. Leave it out of report_to."
            )
        self.tracker: Any = None

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Begin to measure."""
        if state.is_local_process_zero:
            self._guarded("the measurement", lambda: self._start(args))

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write down what was used so far."""
        if self.tracker is not None:
            self._guarded(f"emissions up to step {state.global_step}", self.tracker.flush)

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write down what was used."""
        self.close()

    def close(self) -> None:
        """Stop measuring; closing again does nothing."""
        tracker, self.tracker = self.tracker, None
        if tracker is not None:
            self._guarded("the emissions", tracker.stop)
        self._tell_what_was_not_sent()

    def _start(self, args: Any) -> None:
        known = require("codecarbon.core.config", "CodeCarbonCallback").get_hierarchical_config()
        kind = self._library.OfflineEmissionsTracker if "country_iso_code" in known else self._library.EmissionsTracker
        if "country_iso_code" not in known:
            _logger.warning(
                "CodeCarbon asks a server where this machine is. Set CODECARBON_COUNTRY_ISO_CODE, such as FRA, and "
                "nothing is asked."
            )
        folder = known.get("output_dir", args.output_dir)
        earlier = Path(folder) / known.get("output_file", "emissions.csv")
        if earlier.is_file():
            drop_unfinished(earlier)
        self.tracker = kind(output_dir=folder, on_csv_write=known.get("on_csv_write", "update"))
        self.tracker.start()
