"""Logging that knows its rank: one logger tree, quiet on replicas."""

from __future__ import annotations

import inspect
import logging
import os
import sys
import warnings
from functools import cache
from typing import Any

_ROOT = "surestep"
# The names that the original's `log_level` takes.
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "passive": logging.NOTSET,
}


class _RankFilter(logging.Filter):
    """Adds the rank to records of a run with several processes."""

    def filter(self, record: logging.LogRecord) -> bool:
        rank = os.environ.get("RANK")
        record.rank = f"[rank {rank}] " if rank is not None and os.environ.get("WORLD_SIZE", "1") != "1" else ""
        return True


class _ErrorStream(logging.Handler):
    """Writes to what `sys.stderr` is when a record comes: a progress bar puts itself in its place for a while."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


@cache
def _root() -> logging.Logger:
    logger = logging.getLogger(_ROOT)
    handler = _ErrorStream()
    handler.addFilter(_RankFilter())
    handler.setFormatter(logging.Formatter("%(rank)s%(levelname)s surestep: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(LEVELS.get(os.environ.get("SURESTEP_LOG_LEVEL", "warning").lower(), logging.WARNING))
    return logger


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module; `name` is the module's `__name__`."""
    _root()
    return logging.getLogger(name)


def set_level(level: str) -> None:
    """Set the level by the original's name; `passive` leaves it as it is."""
    if LEVELS[level] != logging.NOTSET:
        _root().setLevel(LEVELS[level])


def announce(logger: logging.Logger, message: str) -> None:
    """Say `message`, which is no warning, at the level that warnings have: it is heard unless these are shut off."""
    if logger.isEnabledFor(logging.WARNING):
        logger.handle(logger.makeRecord(logger.name, logging.INFO, __name__, 0, message, (), None))


@cache
def warn_once(logger: logging.Logger, message: str) -> None:
    """Warn about `message` the first time it is said in this process."""
    logger.warning(message)


def warn_where_written(method: Any, message: str) -> None:
    """Warn of an older form once, at the line where the method is written that should change."""
    function = inspect.unwrap(getattr(method, "__func__", method))
    code = getattr(function, "__code__", None)
    if code is None:
        warnings.warn(message, FutureWarning, stacklevel=3)
        return
    module = sys.modules.get(function.__module__)
    registry = None if module is None else vars(module).setdefault("__warningregistry__", {})
    warnings.warn_explicit(
        message, FutureWarning, code.co_filename, code.co_firstlineno, function.__module__, registry=registry
    )
