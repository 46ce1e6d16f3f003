"""surestep doctor: what this machine offers, and what does not fit together."""

from __future__ import annotations

import typer
from rich import box
from rich.table import Table

from surestep.cli.console import complain, output, warn


def doctor() -> None:
    """Show versions, devices, threads and disk, and name what does not fit; exits with 1 where training cannot work."""
    from surestep.cli.checkup import examine

    findings = examine()
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, show_header=False)
    for name, value in findings.facts.items():
        table.add_row(name, value)
    output().print(table)
    for trouble in findings.cautions:
        warn(trouble)
    for trouble in findings.problems:
        complain(trouble)
    if not findings.problems and not findings.cautions:
        output().print("Nothing wrong was found.")
    if findings.problems:
        raise typer.Exit(1)
