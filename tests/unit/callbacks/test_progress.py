"""The bar, in a real terminal (a pseudo-terminal of its own process) and where there is none."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from surestep.callbacks.display import RunView
from surestep.callbacks.progress import ProgressCallback
from surestep.training.callback import EVENTS, TrainerCallback
from surestep.training.state import TrainerControl, TrainerState

pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")

ARGS = SimpleNamespace(gradient_accumulation_steps=2, output_dir="out", metric_for_best_model="eval_loss")
CONTROL = TrainerControl()
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"

PRELUDE = """
import os, sys, time
from types import SimpleNamespace
from surestep.callbacks.progress import Bar, ProgressCallback
from surestep.training.state import TrainerControl, TrainerState

args = SimpleNamespace(gradient_accumulation_steps=1, output_dir="out", metric_for_best_model="eval_loss")
state = TrainerState(max_steps=40, train_batch_size=32, num_train_epochs=2)
control = TrainerControl()
callback = ProgressCallback()
draw, draws = Bar._draw, []
def counted_draw(self):
    draws.append(None)
    return draw(self)
Bar._draw = counted_draw
def wait_for_draws():
    target = len(draws) + 2
    while len(draws) < target:
        time.sleep(0.05)
"""


def in_terminal(code: str, tmp_path: Path) -> tuple[int, str]:
    """Run `code` in a process whose standard streams are a terminal; return its exit status and what it wrote."""
    script = tmp_path / "script.py"
    script.write_text(PRELUDE + code)
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "24"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, str(script)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:
            break
        if not chunk:
            break
        written += chunk
    os.close(ours)
    return process.wait(), written.decode().replace("\r\n", "\n")


def test_no_event_of_a_step_is_listened_to():
    heard = {event for event in EVENTS if getattr(ProgressCallback, event) is not getattr(TrainerCallback, event)}
    assert heard == {"on_train_begin", "on_log", "on_prediction_step", "on_evaluate", "on_predict", "on_train_end"}


def test_bar_follows_the_state_without_being_told(tmp_path):
    status, text = in_terminal(
        """
callback.on_train_begin(args, state, control)
state.global_step, state.epoch = 10, 0.5
callback.on_log(args, state, control, logs={"loss": 0.41234, "learning_rate": 4.5e-05, "note": "[bold]"})
wait_for_draws()
state.global_step, state.epoch = 20, 1.0
wait_for_draws()
for _ in range(3):
    callback.on_prediction_step(args, state, control, eval_dataloader=range(12))
wait_for_draws()
callback.on_evaluate(args, state, control)
wait_for_draws()
print("a word of the user")
state.log_history.append({"train_runtime": 5.0, "train_loss": 0.3})
callback.on_log(args, state, control, logs=state.log_history[-1])
callback.on_train_end(args, state, control)
print("after")
""",
        tmp_path,
    )
    assert status == 0
    for expected in ("0/40", "10/40", "20/40", "epoch 1.00/2", "samples/s", " left", "loss 0.4123  lr 4.5e-05", "3/12"):
        assert expected in text
    assert "step 10/40  loss 0.4123  learning_rate 4.5e-05  note [bold]\n" in text
    assert "a word of the user\n" in text
    assert "train_runtime" not in text, "the closing figures are the summary's"
    assert text.count(HIDE) == text.count(SHOW) == 1
    after_bar = text.rpartition(SHOW)[2]
    for row in ("steps", "20 of 40", "train_loss", "0.3", "output"):
        assert row in after_bar
    assert after_bar.endswith("after\n")


@pytest.mark.parametrize("keep", ["", "sys.callback = callback"])
def test_cursor_comes_back_when_training_fails_and_nobody_closes(tmp_path, keep):
    status, text = in_terminal(
        f"{keep}\ncallback.on_train_begin(args, state, control)\nwait_for_draws()\nraise RuntimeError('boom')", tmp_path
    )
    assert status == 1
    assert "RuntimeError: boom" in text
    assert text.rfind(SHOW) > text.rfind(HIDE) > -1


def test_close_is_idempotent_and_a_new_training_may_follow(tmp_path):
    status, text = in_terminal(
        """
callback.close()
callback.on_train_begin(args, state, control)
callback.close()
callback.close()
assert type(sys.stdout).__name__ == "TextIOWrapper"
callback.on_log(args, state, control, logs={"eval_loss": 1.0})
callback.on_train_begin(args, state, control)
callback.on_train_end(args, state, control)
""",
        tmp_path,
    )
    assert status == 0
    assert text.count(HIDE) == text.count(SHOW) == 2
    assert "step 0/40  eval_loss 1\n" in text


def test_the_newest_of_two_trainers_has_the_bar_and_the_other_goes_on_in_lines(tmp_path):
    status, text = in_terminal(
        """
other, other_state = ProgressCallback(), TrainerState(max_steps=7, train_batch_size=1)
callback.on_train_begin(args, state, control)
other.on_train_begin(args, other_state, control)
callback.on_log(args, state, control, logs={"loss": 1.5})
callback.on_train_end(args, state, control)
wait_for_draws()
other.on_train_end(args, other_state, control)
""",
        tmp_path,
    )
    assert status == 0
    assert "step 0/40  loss 1.5\n" in text
    assert "0 of 40" in text
    assert "0 of 7" in text
    assert text.count(HIDE) == text.count(SHOW) == 2


def test_forked_child_writes_past_the_bar_of_its_parent(tmp_path):
    status, text = in_terminal(
        """
import threading
callback.on_train_begin(args, state, control)
held, forked = threading.Event(), threading.Event()

def hold_the_lock_as_a_draw_does():
    with Bar._drawn._live._lock:
        held.set()
        forked.wait()

threading.Thread(target=hold_the_lock_as_a_draw_does).start()
held.wait()
pid = os.fork()
if pid == 0:
    print("child speaks")
    callback.close()
    sys.stdout.flush()
    os._exit(0)
for _ in range(200):
    ended, status = os.waitpid(pid, os.WNOHANG)
    if ended:
        break
    time.sleep(0.1)
else:
    os.kill(pid, 9)
forked.set()
assert (ended, status) == (pid, 0), "the child hangs or failed"
callback.on_train_end(args, state, control)
""",
        tmp_path,
    )
    assert status == 0
    assert "child speaks" in text
    assert text.count(SHOW) == 1


def test_evaluation_alone_has_a_bar_of_its_own(tmp_path):
    status, text = in_terminal(
        """
for _ in range(2):
    for _ in range(5):
        callback.on_prediction_step(args, state, control, eval_dataloader=iter(()))
    wait_for_draws()
    callback.on_predict(args, state, control)
""",
        tmp_path,
    )
    assert status == 0
    assert "evaluation" in text
    assert "5/?" in text
    assert text.count(HIDE) == text.count(SHOW) == 2


def test_lines_where_there_is_no_terminal(capsys):
    callback, state = ProgressCallback(max_str_len=5), TrainerState(max_steps=500, train_batch_size=8, epoch=1.0)
    callback.on_train_begin(ARGS, state, CONTROL)
    state.global_step = 50
    logs = {"loss": 0.41234, "learning_rate": 4.53e-05, "note": "too long", "total_flos": 1.0}
    callback.on_log(ARGS, state, CONTROL, logs=logs)
    callback.on_prediction_step(ARGS, state, CONTROL, eval_dataloader=range(4))
    callback.on_evaluate(ARGS, state, CONTROL)
    state.log_history.append({"train_runtime": 3.2, "train_loss": 0.5, "train_samples_per_second": 250.0})
    callback.on_log(ARGS, state, CONTROL, logs=state.log_history[-1])
    callback.on_train_end(ARGS, state, CONTROL)
    assert capsys.readouterr().out.splitlines() == [
        "step 50/500  loss 0.4123  learning_rate 4.53e-05  note [text of 8 characters, more than max_str_len=5]",
        "done  steps 50 of 500  epochs 1  train_loss 0.5  runtime 0:03  samples/s 250  output out",
    ]
    assert logs["total_flos"] == 1.0


def test_only_the_first_process_speaks(capsys):
    callback, state = ProgressCallback(), TrainerState(max_steps=5, is_world_process_zero=False)
    callback.on_train_begin(ARGS, state, CONTROL)
    callback.on_log(ARGS, state, CONTROL, logs={"loss": 1.0})
    callback.on_prediction_step(ARGS, state, CONTROL, eval_dataloader=range(4))
    callback.on_evaluate(ARGS, state, CONTROL)
    callback.on_train_end(ARGS, state, CONTROL)
    assert capsys.readouterr() == ("", "")


def test_rich_is_loaded_only_for_a_terminal():
    code = (
        PRELUDE + "callback.on_train_begin(args, state, control)\nprint('rich' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(time, "monotonic", lambda: now.seconds)
    return now


def test_speed_and_time_left(clock, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    run, state = RunView(), TrainerState(global_step=100, max_steps=300, train_batch_size=8)
    assert (run.speed(), run.seconds_left()) == ("", None)
    run.begin(ARGS, state)
    assert (run.speed(), run.seconds_left()) == ("", None)
    clock.seconds, state.global_step = 110.0, 150
    assert run.speed() == "320 samples/s", "5 steps/s of 8 samples, 2 micro-batches and 4 processes"
    assert run.seconds_left() == pytest.approx(150 / 5)
    run.predicted = 3
    clock.seconds = 150.0
    assert run.speed() == "", "nothing is trained while something is predicted"
    run.end_prediction()
    assert run.speed() == ""
    clock.seconds, state.global_step = 151.0, 160
    assert run.speed() == "640 samples/s", "the time of the predictions does not count"
    assert run.seconds_left() == pytest.approx(51.0 / 60 * 140), "but it does here"


def test_speed_in_steps_where_the_batch_size_is_unknown(clock):
    run, state = RunView(), TrainerState(max_steps=300)
    run.begin(ARGS, state)
    run.speed()
    clock.seconds, state.global_step = 102.0, 5
    assert run.speed() == "2.50 steps/s"
