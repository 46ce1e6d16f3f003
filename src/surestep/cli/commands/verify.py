"""surestep verify: whether checkpoints are as they were written."""

from __future__ import annotations

from typing import Annotated

import typer

from surestep.cli.console import complain, output

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def verify(
    place: Annotated[
        str, typer.Argument(metavar="CHECKPOINT|RUN", help="A checkpoint, or the output_dir of a run; a URL as well.")
    ],
    as_json: AsJson = False,
) -> None:
    """Compare every file of a checkpoint, or of all those of a run, with the manifest. Exits with 1 for damage."""
    from surestep.cli.checkpoints import checks_data, checks_view, print_json, readable
    from surestep.cli.places import checks_at

    with readable():
        checks = checks_at(place)
    if not checks:
        complain(f"'{place}' is no folder. Name a checkpoint-<step> folder, or the output_dir of a run.")
        raise typer.Exit(2)
    if as_json:
        print_json(checks_data(checks))
    else:
        output().print(checks_view(checks))
    if any(check.problems for check in checks):
        raise typer.Exit(1)
