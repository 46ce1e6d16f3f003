"""surestep version."""

from __future__ import annotations

from importlib.metadata import version as installed_version

from surestep.cli.console import output


def version() -> None:
    """Print the version of surestep."""
    output().print(f"surestep {installed_version('surestep')}")
