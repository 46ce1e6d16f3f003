"""Progress in a notebook: a bar, and a table with a row for every evaluation."""

from __future__ import annotations

import html
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from surestep.callbacks.display import DisplayCallback, RunView, beside_bar
from surestep.callbacks.progress import ProgressCallback
from surestep.callbacks.wording import pairs_text, value_text
from surestep.optional import require
from surestep.training.state import TrainerControl, TrainerState

_SECONDS_PER_DRAW = 0.5
# Of an evaluation, what is no measure of the model.
_NO_MEASURE = ("_runtime", "_samples_per_second", "_steps_per_second", "_model_preparation_time")


def in_kernel() -> bool:
    """Say whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def default_progress() -> type[DisplayCallback]:
    """Return the class that shows progress best in this process."""
    return NotebookProgressCallback if in_kernel() else ProgressCallback


class Output(Protocol):
    """A piece of output of a cell that can be replaced."""

    def update(self, content: Any) -> None:
        """Replace what is shown."""


def _show(text: str) -> Callable[[str], None]:
    """Show HTML below the cell; return what replaces it."""
    from IPython.display import HTML, display

    output: Output = display(HTML(text), display_id=True)
    return lambda later: output.update(HTML(later))


class Page:
    """The output of a cell: the bars, drawn by a thread on its own clock, and the table, drawn when a row comes."""

    def __init__(self, run: RunView, show: Callable[[str], Callable[[str], None]] = _show) -> None:
        self._run = run
        self._rows: list[dict[str, Any]] = []
        self._closed = threading.Event()
        self._draw_bars = show(bars_html(run))
        self._draw_table = show("")
        threading.Thread(target=self._keep_drawing, name="surestep-notebook", daemon=True).start()

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row, or fill in the last one if its first column is the same."""
        first = next(iter(row))
        if self._rows and self._rows[-1].get(first) == row[first]:
            self._rows[-1] |= row
        else:
            self._rows.append(dict(row))
        self._draw_table(table_html(self._rows))

    def say(self, line: str) -> None:
        """Leave the line out: the rows say it."""

    def conclude(self, rows: Mapping[str, str]) -> None:
        """Write the summary below the table."""
        summary = html.escape(pairs_text(rows, max_str_len=1000))
        self._draw_table(f"{table_html(self._rows)}<p>{summary}</p>")

    def close(self) -> None:
        """Draw for the last time."""
        if not self._closed.is_set():
            self._closed.set()
            self._draw_bars(bars_html(self._run))

    def _keep_drawing(self) -> None:
        while not self._closed.wait(_SECONDS_PER_DRAW):
            self._draw_bars(bars_html(self._run))


class NotebookProgressCallback(DisplayCallback):
    """Shows a run in a notebook, in the columns of the original. Needs IPython.

    With an evaluation strategy there is a row for each evaluation, without one a row for each logged loss.
    """

    def __init__(self) -> None:
        require("IPython", "NotebookProgressCallback")
        super().__init__()

    def _open_face(self, args: Any, run: RunView) -> Page:
        page = Page(run)
        weakref.finalize(self, page.close)
        return page

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep the figures beside the bar; add a row where no evaluation will."""
        if not state.is_world_process_zero or not logs:
            return
        self._run.note(logs)
        if isinstance(self._face, Page) and args.eval_strategy == "no" and "loss" in logs:
            self._face.add({"Step": state.global_step, "Training Loss": logs["loss"]})

    def on_evaluate(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the row of the evaluation."""
        if not state.is_world_process_zero:
            return
        page = self._face if isinstance(self._face, Page) else self._open_face(args, self._run)
        page.add(evaluation_row(args, state, metrics or {}))
        self._face = page
        self._end_prediction()


def evaluation_row(args: Any, state: TrainerState, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of an evaluation: the step or epoch, the last training loss, and each measure by its name."""
    when = {"Epoch": int(state.epoch or 0)} if args.eval_strategy == "epoch" else {"Step": state.global_step}
    loss = next((entry["loss"] for entry in reversed(state.log_history) if "loss" in entry), "No log")
    measures = {
        _title(name): value
        for name, value in metrics.items()
        if name not in ("epoch", "total_flos") and not name.endswith(_NO_MEASURE)
    }
    return {**when, "Training Loss": loss, "Validation Loss": "No log", **measures}


def _title(name: str) -> str:
    title = " ".join(part.capitalize() for part in name.split("_")[1:])
    return "Validation Loss" if title == "Loss" else title


def bars_html(run: RunView) -> str:
    """Return the bars of a training and of the predictions within it."""
    lines, state = [], run.state
    if state is not None:
        label = f"step {state.global_step}/{state.max_steps}  epoch {state.epoch or 0:.2f}/{state.num_train_epochs}"
        lines.append(_bar_html(state.global_step, state.max_steps, f"{label}  {beside_bar(run)}"))
    if run.predicted:
        lines.append(_bar_html(run.predicted, run.to_predict, f"evaluation {run.predicted}/{run.to_predict or '?'}"))
    return "".join(lines)


def _bar_html(done: int, total: int | None, label: str) -> str:
    share = f" value='{done}' max='{total}'" if total else ""
    return f"<div><progress{share} style='width:300px; vertical-align:middle'></progress> {html.escape(label)}</div>"


def table_html(rows: list[dict[str, Any]]) -> str:
    """Return a table with a column for every name; what a row does not have is "No log"."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(_cell_html(row.get(name, 'No log')) for name in columns)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if rows else ""


def _cell_html(value: Any) -> str:
    return f"<td>{html.escape(f'{value:.6f}' if isinstance(value, float) else value_text(value))}</td>"
