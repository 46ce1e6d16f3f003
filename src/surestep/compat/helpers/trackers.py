"""The trackers of `report_to`, under the original's names."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from surestep.callbacks.trackers.registry import tracker_callbacks
from surestep.config.topics.tracking import TRACKERS, installed_trackers
from surestep.training.callback import TrainerCallback


class _Classes(Mapping[str, type[TrainerCallback]]):
    """Name in `report_to` -> class, imported when it is asked for. Read-only: the trainer has its own list."""

    def __getitem__(self, name: str) -> type[TrainerCallback]:
        if name not in TRACKERS:
            raise KeyError(name)
        return tracker_callbacks(name)[0]

    def __iter__(self) -> Iterator[str]:
        return iter(TRACKERS)

    def __len__(self) -> int:
        return len(TRACKERS)


INTEGRATION_TO_CALLBACK = _Classes()


def get_reporting_integration_callbacks(report_to: str | Iterable[str] | None) -> list[type[TrainerCallback]]:
    """Return the classes of the trackers that `report_to` names; "all" means those that are installed."""
    return tracker_callbacks(report_to)


def get_available_reporting_integrations() -> list[str]:
    """Return the names of the trackers that are installed and set up."""
    return installed_trackers()


def default_logdir() -> str:
    """Return a folder below `runs` that is named after the time and this machine, as torch names its own."""
    return os.path.join("runs", f"{datetime.now():%b%d_%H-%M-%S}_{socket.gethostname()}")  # noqa: PTH118 (a text)
