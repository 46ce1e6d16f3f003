"""surestep inspect: what a checkpoint holds."""

from __future__ import annotations

from typing import Annotated

import typer

from surestep.cli.commands.verify import AsJson
from surestep.cli.console import output

All = Annotated[bool, typer.Option("--all", help="Show every row of every table.")]


def inspect(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="A checkpoint, ours or the original's; the URL of one of ours.")
    ],
    everything: All = False,
    as_json: AsJson = False,
) -> None:
    """Show what a checkpoint holds: step, position, run, optimizer, best, parts, weights, and with --all arguments."""
    from surestep.checkpoint.contents import contents_of
    from surestep.cli.checkpoints import inspect_view, inspected, print_json, readable
    from surestep.cli.places import brought

    with readable(), brought(checkpoint, whole=False) as folder:
        found = inspected(contents_of(folder), checkpoint)
    if as_json:
        print_json(found)
    else:
        output().print(inspect_view(found, everything=everything))
