"""Run a script with our names where transformers holds its own: `python -m tests.compat.clients.side SCRIPT ARGS`."""

from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path

import surestep

MODULES = ("trainer", "trainer_callback", "trainer_pt_utils", "trainer_utils", "training_args", "data.data_collator")


def install() -> None:
    """Put our names into the places of the original's."""
    transformers = importlib.import_module("transformers")
    places = [importlib.import_module(f"transformers.{module}") for module in MODULES]
    for name in surestep.__all__:
        if not hasattr(transformers, name):
            continue
        for place in (transformers, *(place for place in places if hasattr(place, name))):
            setattr(place, name, getattr(surestep, name))


if __name__ == "__main__":
    install()
    del sys.argv[0]
    sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))
    runpy.run_path(sys.argv[0], run_name="__main__")
