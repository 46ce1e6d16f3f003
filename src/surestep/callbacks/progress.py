"""The bar on a terminal, and lines where there is none."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from surestep.callbacks.display import DisplayCallback, Face, Lines, RunView, beside_bar

if TYPE_CHECKING:
    from rich.table import Table

# A draw takes half a millisecond.
_DRAWS_PER_SECOND = 4
# Where the terminal is narrow, the last column is the one that is cut.
_COLUMNS: tuple[dict[str, Any], ...] = (
    {"no_wrap": True, "min_width": 12},
    {"ratio": 1, "min_width": 4},
    {"no_wrap": True, "min_width": 9},
    {"no_wrap": True},
)


class ProgressCallback(DisplayCallback):
    """Shows a training or evaluation: a bar on a terminal, a line per entry of the log elsewhere.

    The bar is drawn by a thread of its own, so that a step costs nothing. `max_str_len` is the length beyond which
    text in the log is not shown. One bar is drawn in a process, the newest; a run that had one before goes on in lines.
    """

    def _open_face(self, args: Any, run: RunView) -> Face:
        if not _is_terminal():
            return Lines()
        bar = Bar(run)
        # Also at the exit of the interpreter, so that no exception leaves a terminal without its cursor.
        weakref.finalize(self, bar.close)
        return bar


def _is_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


class Bar:
    """A bar at the foot of the terminal, below what is written meanwhile."""

    _drawn: Bar | None = None

    def __init__(self, run: RunView) -> None:
        import rich
        from rich.live import Live

        self._run = run
        # The console that everybody shares, so that what others write through rich stays above the bar as well.
        self._console = rich.get_console()
        self._live = Live(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=_DRAWS_PER_SECOND,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),
        )
        if Bar._drawn is not None:
            Bar._drawn.close()
        Bar._drawn = self
        self._live.start(refresh=True)

    def say(self, line: str) -> None:
        """Write a line above the bar."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def conclude(self, rows: Mapping[str, str]) -> None:
        """Write the summary as a table."""
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for name, text in rows.items():
            table.add_row(Text(name, style="bold"), Text(text))
        self.close()
        self._console.print(table)

    def close(self) -> None:
        """Take the bar away and show the cursor again."""
        if Bar._drawn is self:
            Bar._drawn = None
            self._live.stop()

    def _draw(self) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        rows = Table.grid(padding=(0, 1))
        for options in _COLUMNS:
            rows.add_column(**options)
        run, state = self._run, self._run.state
        if state is not None:
            bar = ProgressBar(total=state.max_steps, completed=state.global_step)
            epochs = f"epoch {state.epoch or 0:.2f}/{state.num_train_epochs}"
            rows.add_row(epochs, bar, f"{state.global_step}/{state.max_steps}", beside_bar(run))
        if run.predicted:
            bar = ProgressBar(total=run.to_predict, completed=run.predicted)
            rows.add_row("evaluation", bar, f"{run.predicted}/{run.to_predict or '?'}", "")
        return rows


def _leave_to_parent() -> None:
    """Free a forked child of its parent's bar: the lock of the terminal may be held by a thread that is not there."""
    bar, Bar._drawn = Bar._drawn, None
    if bar is not None:
        sys.stdout = getattr(sys.stdout, "rich_proxied_file", sys.stdout)
        sys.stderr = getattr(sys.stderr, "rich_proxied_file", sys.stderr)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
