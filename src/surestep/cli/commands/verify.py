"""surestep verify: whether checkpoints are as they were written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from surestep.cli.console import complain, output

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def verify(
    folder: Annotated[Path, typer.Argument(metavar="CHECKPOINT|RUN", help="A checkpoint, or the output_dir of a run.")],
    as_json: AsJson = False,
) -> None:
    """Compare every file of a checkpoint, or of all those of a run, with the manifest. Exits with 1 for damage."""
    from surestep.checkpoint.layout import checkpoints_in
    from surestep.cli.checkpoints import check_folder, checks_data, checks_view, print_json

    folders = checkpoints_in(folder) or [folder]
    if not folder.is_dir():
        complain(f"'{folder}' is no folder. Name a checkpoint-<step> folder, or the output_dir of a run.")
        raise typer.Exit(2)
    checks = [check_folder(one) for one in folders]
    if as_json:
        print_json(checks_data(checks))
    else:
        output().print(checks_view(checks))
    if any(check.problems for check in checks):
        raise typer.Exit(1)
