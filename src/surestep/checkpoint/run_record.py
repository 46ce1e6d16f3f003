"""The run that an output folder belongs to, the one begun in it last, and how it ended: `.surestep-run.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from surestep.logs import get_logger
from surestep.runtime.disk import replace_text

_logger = get_logger(__name__)
RUN_RECORD: Final = ".surestep-run.json"
_FORMAT, _VERSION = "surestep.run", 1


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run by its name, and when it was begun (UTC, ISO 8601).

    `ended` is there once it came to its end: `state`, `training_loss` and `metrics` of what it returned, and
    whether it ended before its last step: `early`, for it got no better, or `out_of_time`.
    """

    run: str
    begun: str
    ended: dict[str, Any] | None = None

    def write(self, folder: Path) -> None:
        """Write the record into an output folder, in the place of an older one, in one stroke."""
        content = {"format": _FORMAT, "version": _VERSION, **asdict(self)}
        replace_text(folder / RUN_RECORD, json.dumps(content, indent=1) + "\n")


def read_record(folder: Path) -> RunRecord | None:
    """Return the record in a folder, None where there is none that can be read."""
    path = folder / RUN_RECORD
    try:
        return parse_record(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        _tell(str(path), error)
    return None


def parse_record(text: bytes, place: str) -> RunRecord | None:
    """Return the record that was read at a place, None where it is none that can be read."""
    try:
        content = json.loads(text)
        if (content["format"], content["version"]) == (_FORMAT, _VERSION):
            return RunRecord(content["run"], content["begun"], content["ended"])
        _logger.warning("'%s' is of another version of this library: it is not read.", place)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        _tell(place, error)
    return None


def _tell(place: str, error: Exception) -> None:
    _logger.warning("'%s' cannot be read (%s): every checkpoint beside it counts as this run's.", place, error)
