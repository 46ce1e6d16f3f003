"""Where the commands speak: results to standard output, everything else to standard error."""

from __future__ import annotations

from functools import cache

from rich.console import Console
from rich.text import Text


@cache
def output() -> Console:
    """Return the console of results; colours and lines only on a terminal."""
    return Console(highlight=False, markup=False)


@cache
def messages() -> Console:
    """Return the console of messages."""
    return Console(stderr=True, highlight=False, markup=False)


def say(text: str) -> None:
    """Tell the user what goes on."""
    messages().print(Text(text), soft_wrap=True)


def warn(text: str) -> None:
    """Tell the user what may be wrong."""
    messages().print(Text.assemble(("warning: ", "yellow"), text), soft_wrap=True)


def complain(text: str) -> None:
    """Tell the user why nothing more will happen."""
    messages().print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)
