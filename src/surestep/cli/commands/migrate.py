"""surestep migrate: older spellings become today's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surestep.cli.console import complain, say, warn
from surestep.errors import MigrationError

if TYPE_CHECKING:
    from surestep.compat.migrate.edits import Migration


def migrate(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="FILE_OR_FOLDER", help="Scripts, notebooks, settings, folders.", show_default=False),
    ],
    write: Annotated[bool, typer.Option("--write", help="Change the files, and print no difference.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 where anything is to be changed.")] = False,
    imports: Annotated[
        bool, typer.Option("--imports", help="Import from surestep what is imported from transformers.")
    ] = False,
) -> None:
    """Show older names of settings, arguments and methods in today's spelling, as a difference to apply."""
    from surestep.compat.migrate.files import files_below, migrate_file

    changed = unread = 0
    for path in (file for given in paths for file in files_below(given)):
        try:
            migration = migrate_file(path, imports=imports)
        except MigrationError as error:
            complain(str(error))
            unread += 1
            continue
        changed += migration.changed
        _show(path, migration, write=write)
    if not changed and not unread:
        say("Nothing is to be changed.")
    if unread:
        raise typer.Exit(2)
    if changed and check:
        raise typer.Exit(1)


def _show(path: Path, migration: Migration, *, write: bool) -> None:
    """Write the file or print its difference; tell what was done and what is left to its author."""
    from surestep.compat.migrate import files

    if migration.changed and write:
        files.write(path, migration.after)
    elif migration.changed:
        sys.stdout.write(files.difference(path, migration))
    for note in migration.done:
        say(f"{path}:{note.line}: {note.text}")
    for note in migration.left:
        warn(f"{path}:{note.line}: {note.text}")
