"""surestep plan: show what a job would do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from surestep.cli.console import output


def plan(
    job_file: Annotated[
        Path, typer.Argument(metavar="JOB_FILE", help="Job file: YAML, JSON or TOML.", show_default=False)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="SECTION.KEY=VALUE", help="Settings that replace those of the file."),
    ] = None,
) -> None:
    """Show steps, rates, parameters and memory of JOB_FILE without doing anything (the same as run --dry-run)."""
    show_plan(job_file, overrides or [])


def show_plan(job_file: Path, overrides: list[str]) -> None:
    """Work out and print the plan of a job."""
    from surestep.cli.tables import plan_view
    from surestep.jobs.reading import read_job

    job = read_job(job_file, overrides)
    from surestep.jobs.plan import plan_job

    output().print(plan_view(plan_job(job, job_file.parent)))
