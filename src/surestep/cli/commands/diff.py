"""surestep diff: what differs between two checkpoints."""

from __future__ import annotations

from typing import Annotated

import typer

from surestep.cli.commands.inspect import All
from surestep.cli.commands.verify import AsJson
from surestep.cli.console import output


def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="A checkpoint, or its URL.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    everything: All = False,
    as_json: AsJson = False,
) -> None:
    """Compare two checkpoints: arguments, state, every tensor. Exits with 0 where they are equal, else with 1.

    Times, speeds, who wrote them and where they lie do not count, nor do arguments that change no number.
    """
    from surestep.checkpoint.contents import contents_of
    from surestep.checkpoint.differing import compare
    from surestep.cli.checkpoints import diff_view, print_json, readable
    from surestep.cli.places import brought

    with readable(), brought(first, whole=True) as here, brought(second, whole=True) as there:
        found = list(compare(contents_of(here), contents_of(there)))
    equal = all(one.harmless for one in found)
    if as_json:
        print_json({"equal": equal, "differences": [one.to_dict() for one in found]})
    else:
        output().print(diff_view(found, everything=everything))
    if not equal:
        raise typer.Exit(1)
