"""The command `surestep`. Nothing heavy is imported before a command needs it.

Exit codes: 0 all is well; 1 it failed; 2 what was asked for cannot be done as it is declared; 128 + n signal n came
(130: Ctrl-C), after saving.
"""

from __future__ import annotations

import sys

import typer

from surestep.cli.commands.diff import diff
from surestep.cli.commands.doctor import doctor
from surestep.cli.commands.execute import AS_THEY_ARE, execute
from surestep.cli.commands.inspect import inspect
from surestep.cli.commands.migrate import migrate
from surestep.cli.commands.plan import plan
from surestep.cli.commands.run import run
from surestep.cli.commands.schema import schema
from surestep.cli.commands.verify import verify
from surestep.cli.commands.version import version
from surestep.cli.console import complain
from surestep.errors import JobError, MigrationError, SurestepError

_FAILED, _CANNOT, _INTERRUPTED = 1, 2, 130

app = typer.Typer(
    name="surestep",
    help="Train what a file declares: every step counted once, none lost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _command in (run, plan, schema, verify, inspect, diff, doctor, migrate, version):
    app.command()(_command)
app.command("exec", context_settings=AS_THEY_ARE)(execute)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    try:
        app(args=arguments)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except SurestepError as error:
        complain(str(error))
        sys.exit(_CANNOT if isinstance(error, JobError | MigrationError) else _FAILED)
