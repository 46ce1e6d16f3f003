"""Base of every callback that hands something of a run to another package: what happens when that package fails."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar

from surestep.errors import TrackerError
from surestep.logs import get_logger
from surestep.optional import require
from surestep.training.callback import TrainerCallback

_logger = get_logger(__name__)


class Reporter(TrainerCallback):
    """Base of what reports a run to somewhere else.

    An absent package is an error when the callback is made. A failure in the middle of a run never stops it: it is
    warned of once, and the end of the run says what was not sent. With `strict=True` it is a `TrackerError`.
    """

    # As in `report_to`, and the module to import, if one is needed.
    name: ClassVar[str] = ""
    package: ClassVar[str] = ""
    # What keeps the client from sending home what nobody asked for, unless the user has set it.
    quiet: ClassVar[tuple[tuple[str, str], ...]] = ()

    def __init__(self, *, strict: bool = False) -> None:
        for variable, value in self.quiet:
            os.environ.setdefault(variable, value)
        self.strict = strict
        self._library: Any = self._import()
        self._has_warned = False
        self._not_sent: list[str] = []

    def _import(self) -> ModuleType | None:
        return require(self.package, f"{type(self).__name__} (report_to={self.name!r})") if self.package else None

    def _guarded(self, what: str, action: Callable[[], object]) -> None:
        """Do something that may fail; `what` is its name in what the end of the run says."""
        try:
            action()
        except Exception as error:
            # Whatever a client raises: what the run has learned is worth more than its report.
            self._fails(error)
            self._not_sent.append(what)

    def _fails(self, error: Exception) -> None:
        """Take note of a failure."""
        told = f"{self.name}: {type(error).__name__}: {error}"
        if self.strict:
            raise TrackerError(f"{told}. strict=True asks for the run to stop here.") from error
        if self._has_warned:
            _logger.info("%s", told)
        else:
            _logger.warning("%s. Training goes on, and says at its end what was not sent.", told)
        self._has_warned = True

    def _tell_what_was_not_sent(self) -> None:
        """Say what was not sent, and forget it."""
        if self._not_sent:
            _logger.warning("%s was not sent: %s.", self.name, ", ".join(self._not_sent))
        self._not_sent, self._has_warned = [], False


def is_true(variable: str) -> bool:
    """Say whether an environment variable asks for something: 1, on, yes or true."""
    return os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}
