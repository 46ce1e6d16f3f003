"""Which run wrote a checkpoint, when, and of what: `origin.json`, beside the state that the original knows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from surestep.checkpoint import files
from surestep.runtime.disk import write_text

ORIGIN: Final = "origin.json"
_FORMAT, _VERSION = "surestep.origin", 1


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a checkpoint. Times are UTC in ISO 8601; `parameters` is a digest of names and shapes.

    `samples` and `fingerprint` are those of the training set, as far as it can tell them.
    """

    run: str
    begun: str
    written: str = ""
    surestep: str = ""
    torch: str = ""
    model: str = ""
    parameters: str = ""
    tensors: int = 0
    elements: int = 0
    optimizer: str | None = None
    schedule: str | None = None
    processes: int = 1
    samples: int | None = None
    fingerprint: str | None = None

    def write(self, folder: Path) -> None:
        """Write the origin into a checkpoint."""
        content = {"format": _FORMAT, "version": _VERSION, **asdict(self)}
        write_text(folder / ORIGIN, json.dumps(content, indent=1) + "\n")


def read_origin(folder: Path) -> Origin | None:
    """Return the origin of a checkpoint, None where it does not tell it."""
    try:
        content = json.loads((folder / ORIGIN).read_bytes())
        known = {name: value for name, value in content.items() if name in Origin.__dataclass_fields__}
        return Origin(**known) if content["format"] == _FORMAT else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        # Whether a file is damaged is the manifest's affair.
        return None


def run_in(text: bytes) -> str | None:
    """Return the run that an `origin.json` names, wherever it was read from; None where it names none."""
    try:
        return str(json.loads(text)["run"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def digest_of(parameters: Iterable[tuple[str, Any]]) -> str:
    """Return one text for names and shapes of parameters, the same for the same model."""
    lines = sorted(f"{name} {tuple(parameter.shape)}" for name, parameter in parameters)
    return files.text_digest("\n".join(lines))[:16]
