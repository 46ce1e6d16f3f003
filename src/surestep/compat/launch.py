"""Run a script on this library: Python itself runs it, in an environment where every Python begins with the finder.

The process becomes `python script.py`: arguments, `__main__`, search path, standard input, signals, tracebacks and the
exit code are the script's own, and what it starts in its turn begins in the same way.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from surestep.compat.installing import extend, greeting
from surestep.compat.reading import file_of_module, read_script
from surestep.errors import SurestepError
from surestep.logs import announce, get_logger

_logger = get_logger(__name__)


def launch(words: Sequence[str], *, as_module: bool = False) -> NoReturn:
    """Become `python words...`, or `python -m words...`; say first who serves, and which names nobody does."""
    if sys.flags.ignore_environment or sys.flags.no_site:
        raise SurestepError(
            "Python was started with -E, -I or -S, so what it starts would not be served. Leave the option out, or "
            "call surestep.compat.install() at the top of the script."
        )
    said = greeting()
    if os.environ.get("RANK", "0") == "0":
        announce(_logger, said)
        _warn_of_refused(words[0], as_module=as_module)
    environment = dict(os.environ)
    extend(environment)
    command = [sys.executable, *_options(), *(["-m"] if as_module else []), *words]
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "nt":
        # There a program that replaces another is a new process, and whoever waits for the first goes on at once.
        sys.exit(subprocess.call(command, env=environment))
    os.execve(sys.executable, command, environment)  # the arguments are those that this process was given


def file_of(target: str, *, as_module: bool = False) -> Path | None:
    """Return the file that Python would run, or None where there is none to read, as for standard input."""
    file = file_of_module(target) if as_module else Path(target)
    if file is not None and file.is_dir():
        file = file / "__main__.py"
    return file if file is not None and file.is_file() else None


def _warn_of_refused(target: str, *, as_module: bool) -> None:
    from surestep.compat.verdicts import names_refused

    # Of a file that is not there, or no Python, Python itself speaks.
    file = file_of(target, as_module=as_module)
    for finding in names_refused(read_script(file)) if file is not None else ():
        _logger.warning("%s: %s is not served: %s.", finding.place, finding.what, finding.why)


def _options() -> list[str]:
    """Return the options that this Python was started with, for the next to have them."""
    # Not public, and what multiprocessing itself asks for the options of its workers.
    options: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    unbuffered = getattr(sys.stdout, "write_through", False)
    return [*options, "-u"] if unbuffered else options
