"""The notebook's display: its words here, and a real kernel where one is installed."""

import re
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from surestep.callbacks.display import RunView
from surestep.callbacks.notebook import (
    Page,
    bars_html,
    default_progress,
    evaluation_row,
    in_kernel,
    table_html,
)
from surestep.callbacks.progress import ProgressCallback
from surestep.errors import MissingPackageError
from surestep.training.state import TrainerState

METRICS = {
    "eval_loss": 0.25,
    "eval_top_five": 0.9,
    "eval_runtime": 1.0,
    "eval_samples_per_second": 1.0,
    "eval_steps_per_second": 1.0,
    "epoch": 2.0,
}


class Recorder:
    """Shows nothing and keeps what each piece of output held, piece by piece."""

    def __init__(self) -> None:
        self.pieces: list[list[str]] = []
        self.drawn = threading.Event()

    def __call__(self, text: str):
        piece = [text]
        self.pieces.append(piece)

        def replace(later: str) -> None:
            piece.append(later)
            if len(self.pieces[0]) >= 3:
                self.drawn.set()

        return replace


def arguments(strategy: str) -> SimpleNamespace:
    return SimpleNamespace(eval_strategy=strategy, gradient_accumulation_steps=1)


def test_row_of_an_evaluation_by_steps():
    state = TrainerState(global_step=40, epoch=2.0, log_history=[{"loss": 0.5}, {"loss": 0.4}, {"eval_loss": 0.3}])
    metrics = dict(METRICS)
    assert evaluation_row(arguments("steps"), state, metrics) == {
        "Step": 40,
        "Training Loss": 0.4,
        "Validation Loss": 0.25,
        "Top Five": 0.9,
    }
    assert metrics == METRICS


def test_row_of_an_evaluation_by_epochs_of_one_of_several_sets():
    row = evaluation_row(arguments("epoch"), TrainerState(epoch=2.0), {"eval_news_loss": 1.0, "eval_news_runtime": 3})
    assert row == {"Epoch": 2, "Training Loss": "No log", "Validation Loss": "No log", "News Loss": 1.0}


def test_table_has_a_column_for_every_name_and_escapes_text():
    found = table_html([{"Step": 1, "Training Loss": 0.5}, {"Step": 2, "Note": "<b>"}])
    assert re.findall("<th>(.*?)</th>", found) == ["Step", "Training Loss", "Note"]
    rows = [re.findall("<td>(.*?)</td>", row) for row in found.split("</tr>")[1:-1]]
    assert rows == [["1", "0.500000", "No log"], ["2", "No log", "&lt;b&gt;"]]
    assert table_html([]) == ""


def test_bars_of_a_training_and_its_evaluation():
    run, state = RunView(), TrainerState(global_step=5, max_steps=20, epoch=0.25, num_train_epochs=1)
    assert bars_html(run) == ""
    run.begin(arguments("no"), state)
    run.note({"loss": 0.5})
    assert "value='5' max='20'" in bars_html(run)
    assert "step 5/20  epoch 0.25/1  loss 0.5" in bars_html(run)
    run.predicted, run.to_predict = 3, None
    assert "evaluation 3/?" in bars_html(run)
    assert bars_html(run).count("<progress") == 2


def test_page_draws_bars_by_itself_and_the_table_when_a_row_comes():
    show, run = Recorder(), RunView()
    state = TrainerState(max_steps=20)
    run.begin(arguments("steps"), state)
    page = Page(run, show)
    page.add({"Step": 1, "Training Loss": 0.5})
    state.global_step = 7
    assert show.drawn.wait(60), "a thread draws"
    page.add({"Step": 1, "A Loss": 0.25})
    page.add({"Step": 2, "Training Loss": 0.125})
    page.conclude({"steps": "7 < 20"})
    state.global_step = 8
    page.close()
    page.close()
    bars, table = show.pieces
    assert "value='0'" in bars[0]
    assert any("value='7'" in text for text in bars)
    assert "value='8'" in bars[-1]
    assert [text.count("<tr>") for text in table] == [0, 2, 2, 3, 3]
    assert "0.500000</td><td>0.250000" in table[2]
    assert table[-1].endswith("<p>steps 7 &lt; 20</p>")
    count = len(bars)
    page.say("a line")
    assert (len(bars), len(table)) == (count, 5)


def test_outside_of_a_kernel_progress_is_a_bar():
    assert not in_kernel()
    assert default_progress() is ProgressCallback


def test_ipython_is_asked_for_by_name(monkeypatch):
    from surestep.callbacks.notebook import NotebookProgressCallback

    monkeypatch.setattr("surestep.optional.installed", lambda module: False)
    with pytest.raises(MissingPackageError, match=r"NotebookProgressCallback needs .*IPython.* pip install IPython"):
        NotebookProgressCallback()


CELL = """
import time
from types import SimpleNamespace
from surestep.callbacks.notebook import NotebookProgressCallback, default_progress
from surestep.training.state import TrainerControl, TrainerState

assert default_progress() is NotebookProgressCallback
args = SimpleNamespace(eval_strategy={strategy!r}, gradient_accumulation_steps=1, output_dir="out",
                       metric_for_best_model="loss")
state, control = TrainerState(max_steps=20, train_batch_size=8, num_train_epochs=2), TrainerControl()
callback = default_progress()()
callback.on_train_begin(args, state, control)
for step in range(1, 21):
    state.global_step, state.epoch = step, step / 10
    if step % 10 == 0:
        state.log_history.append({{"loss": 1 / step}})
        callback.on_log(args, state, control, logs=state.log_history[-1])
        if {strategy!r} != "no":
            for _ in range(3):
                callback.on_prediction_step(args, state, control, eval_dataloader=range(3))
            time.sleep(1.2)
            callback.on_evaluate(args, state, control, metrics={{"eval_loss": 2 / step, "eval_f1": 0.5}})
callback.on_train_end(args, state, control)
callback.on_prediction_step(args, state, control, eval_dataloader=range(1))
callback.on_evaluate(args, state, control, metrics={{"eval_loss": 0.125}})
"""


def outputs(strategy: str) -> list[str]:
    """Run the cell in a real kernel; return the HTML of its pieces of output as they were left."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient runs a notebook without a browser")
    pytest.importorskip("ipykernel", reason="a notebook needs a kernel")
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL.format(strategy=strategy))])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    found = notebook.cells[0].outputs
    assert all(output.output_type == "display_data" for output in found), found
    return [output.data["text/html"] for output in found]


@pytest.mark.parametrize(("strategy", "header"), [("steps", "Step"), ("epoch", "Epoch"), ("no", "Step")])
def test_a_real_kernel_shows_bars_and_table(strategy, header):
    bars, table, last_bars, last_table = outputs(strategy)
    assert "value='20' max='20'" in bars
    assert "evaluation" not in bars
    assert table.count("<tr>") == 3
    assert f"<th>{header}</th><th>Training Loss</th>" in table
    assert ("<th>F1</th>" in table) is (strategy != "no")
    assert "<p>steps 20  epochs 2  output out</p>" in table
    assert "<progress" in last_bars
    assert "<td>0.125000</td>" in last_table


def test_no_notebook_package_is_loaded_outside_of_one():
    code = "import sys, surestep.callbacks.notebook as n; n.default_progress(); print('IPython' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
