"""surestep exec: run a script that was written for the original."""

from __future__ import annotations

from typing import Annotated

import typer

from surestep.cli.console import complain, output

# What stands behind the script is the script's own, whatever it looks like.
AS_THEY_ARE = {"allow_interspersed_args": False, "ignore_unknown_options": False}


def execute(
    words: Annotated[
        list[str],
        typer.Argument(metavar="SCRIPT [ARGS...]", help="The script, or - for standard input.", show_default=False),
    ],
    as_module: Annotated[bool, typer.Option("-m", help="SCRIPT is the name of a module, as for python -m.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Run nothing; show what becomes of the names and settings that it takes.")
    ] = False,
) -> None:
    """Run SCRIPT, written for transformers' Trainer, on this one, unchanged; so do the processes that it starts.

    The exit code is the script's own. With --check it is 1 where something that the script takes is refused.
    """
    from surestep.compat.launch import launch

    if not check:
        launch(words, as_module=as_module)
    if not _check(words[0], as_module=as_module):
        raise typer.Exit(1)


def _check(target: str, *, as_module: bool) -> bool:
    """Print what becomes of what a script takes; say whether all of it is served."""
    from surestep.cli.tables import findings_view
    from surestep.compat.finding import Verdict
    from surestep.compat.launch import file_of
    from surestep.compat.reading import read_script
    from surestep.compat.verdicts import all_findings

    file = file_of(target, as_module=as_module)
    if file is None:
        raise typer.BadParameter(f"there is no file to read for '{target}'.", param_hint="SCRIPT")
    reading = read_script(file)
    found = all_findings(reading)
    output().print(findings_view(target, found))
    for trouble in reading.unread:
        complain(f"This cannot be read: {trouble}")
    return not reading.unread and all(finding.verdict is not Verdict.REFUSED for finding in found)
