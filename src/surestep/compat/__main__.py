"""`python -m surestep.compat script.py ARGS...`, also with `-m module`: the same as `surestep exec`."""

from __future__ import annotations

import sys

from surestep.compat.launch import launch
from surestep.errors import SurestepError

_USAGE = "usage: python -m surestep.compat (script.py | -m module) [ARGS...]"


def main(words: list[str]) -> None:
    """Run what the words name; exit with 2 where they name nothing, with 1 where nothing can be served."""
    as_module = words[:1] == ["-m"]
    words = words[as_module:]
    if not words or (words[0].startswith("-") and words[0] != "-"):
        sys.stderr.write(f"{_USAGE}\n")
        sys.exit(2)
    try:
        launch(words, as_module=as_module)
    except SurestepError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
