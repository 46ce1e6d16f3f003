"""Tables that a client appends to, as a killed process or a full disk leaves them."""

from __future__ import annotations

from pathlib import Path

from surestep.logs import get_logger

_logger = get_logger(__name__)


def drop_unfinished(table: Path) -> None:
    """Take an unfinished last line out of a table, to which the next one would be joined; nothing is done without one.

    A table of which not even the first line is whole is removed: its client begins it anew.
    """
    content = table.read_bytes()
    whole, newline, unfinished = content.rpartition(b"\n")
    if content and not unfinished:
        return
    shown = unfinished.decode("utf-8", "replace")
    _logger.warning("'%s' ends in the middle of a line (%r): that line is dropped.", table, shown)
    if newline:
        beside = table.with_name(f"{table.name}.part")
        beside.write_bytes(whole + newline)
        beside.replace(table)
    else:
        table.unlink()
