"""The workers that a loader keeps between epochs (`persistent_workers`), in and after a resume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader


class Workers:
    """Hands the workers of one epoch's loader on to the next one's. It owns that loader.

    Torch draws a number for workers that it starts, and none in an epoch that finds them there. A resumed run has to
    start some where the run before did not: it draws the number from a generator of no one.
    """

    def __init__(self) -> None:
        self._loader: DataLoader[Any] | None = None
        self._epoch = 0
        self._found_some = False
        self._resumed: Mapping[str, Any] | None = None

    def begin(self, epoch: int) -> None:
        """Note which epoch begins."""
        self._epoch = epoch

    def take_over(self, loader: DataLoader[Any], *, keep: bool) -> dict[str, Any]:
        """Return what gives `loader` the workers of the last, if they are to be kept and there are some."""
        kept = None if self._loader is None or not keep else self._loader._iterator
        state, self._resumed = self._resumed, None
        missing = kept is None and state is not None and state["at_start" if state["epoch"] == self._epoch else "now"]
        self._loader, self._found_some = loader, kept is not None or missing
        if missing and loader.persistent_workers:
            return {"_iterator": None, "generator": torch.Generator()}
        return {"_iterator": kept}

    def state_dict(self) -> dict[str, Any]:
        """Return whether workers were there when the epoch began, and whether some are there now."""
        now = self._loader is not None and self._loader._iterator is not None
        return {"epoch": self._epoch, "at_start": self._found_some, "now": now}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave: the workers of a run that goes back are those of a run that begins."""
        self._loader, self._resumed = None, state
