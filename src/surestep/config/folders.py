"""Folders that are named after the moment."""

from __future__ import annotations

import socket
import time
from pathlib import Path


def dated_folder(output_dir: str) -> Path:
    """Return the folder of TensorBoard's files that the original's trainer takes: `<output_dir>/runs/<date>_<host>`."""
    return Path(output_dir) / "runs" / f"{time.strftime('%b%d_%H-%M-%S')}_{socket.gethostname()}"
