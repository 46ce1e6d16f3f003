"""What Python runs at its start, found through PYTHONPATH: put the finder in place, then run the user's own file.

Every Python of every version that a script starts runs this, so it is written for all of them and imports little.
"""

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec


class _Notice:
    """Says, where the original is imported, that this Python cannot have it replaced; elsewhere it says nothing."""

    def __init__(self, reason: Exception) -> None:
        self._reason = reason

    def find_spec(self, name, _path=None, _target=None):  # type: ignore[no-untyped-def]
        """Find nothing."""
        if name == "transformers":
            sys.meta_path.remove(self)
            sys.stderr.write(f"{sys.executable} cannot import surestep ({self._reason}): the original trains here.\n")


def _take_out_of_path() -> None:
    """Leave this folder to the environment: the script sees the path that it would see without it."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 (pathlib would be loaded by every child)
    sys.path[:] = [entry for entry in sys.path if entry != here]


def _replace() -> None:
    try:
        from surestep.compat.installing import put_in_place
    except Exception as error:
        sys.meta_path.insert(0, _Notice(error))
    else:
        put_in_place()


def _run_the_next() -> None:
    """Run the file of this name that Python would have run, as Python would have."""
    spec = PathFinder.find_spec("sitecustomize")
    if spec is not None and spec.loader is not None:
        module = sys.modules["sitecustomize"] = module_from_spec(spec)
        spec.loader.exec_module(module)


_take_out_of_path()
_replace()
_run_the_next()
