"""surestep schema: the JSON schema of the job file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from surestep.cli.console import complain, say


def schema(
    file: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it to this file.", show_default=False)
    ] = None,
) -> None:
    """Print the JSON schema of job files, training arguments included."""
    from surestep.jobs.schema import job_schema

    text = json.dumps(job_schema(), indent=2, ensure_ascii=False) + "\n"
    if file is None:
        sys.stdout.write(text)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        complain(f"'{file}' cannot be written ({error.strerror}). Name a file in a folder that is there.")
        raise typer.Exit(1) from error
    say(f"Written to {file}.")
