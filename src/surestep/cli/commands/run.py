"""surestep run: train what a job file declares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from surestep.cli.commands.plan import show_plan
from surestep.cli.console import output, say, warn

JobFile = Annotated[Path, typer.Argument(metavar="JOB_FILE", help="Job file: YAML, JSON or TOML.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="SECTION.KEY=VALUE", help="Settings that replace those of the file.", show_default=False),
]


def run(
    job_file: JobFile,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Move an earlier run aside and start anew.")] = False,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Go on although the job has changed since the run began.")
    ] = False,
) -> None:
    """Train what JOB_FILE declares. A run that was interrupted goes on; one that is complete is shown."""
    if dry_run:
        show_plan(job_file, overrides or [])
        return
    from surestep.cli.tables import results_view
    from surestep.jobs.reading import read_job
    from surestep.jobs.run import Request, run_job

    job = read_job(job_file, overrides or [])
    request = Request(job, job_file.parent, say, warn, fresh=fresh, accept_changes=accept_changes)
    outcome = run_job(request)
    if outcome.signal_number is not None:
        say(f"The run stays in {outcome.folder}. The same command goes on.")
        raise typer.Exit(128 + outcome.signal_number)
    if outcome.was_complete:
        say(f"This run is complete. To train again, give --fresh or another output_dir (now {outcome.folder}).")
    log = "search/" if "search" in outcome.results else "train_log.jsonl"
    files = ["model/", "results.json", "job.json", log]
    output().print(results_view(outcome.results, outcome.folder, files=files))
