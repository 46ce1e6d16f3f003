import math

import pytest

from surestep.callbacks.wording import duration_text, log_line, summary_rows, value_text
from surestep.training.state import TrainerState


class Arguments:
    output_dir = "out"
    metric_for_best_model = "eval_accuracy"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0000453, "4.53e-05"), (0.41234, "0.4123"), (3, "3"), (math.nan, "nan"), ("kept", "kept"), (None, "None")],
)
def test_values(value, text):
    assert value_text(value) == text


def test_long_text_is_named_by_its_length():
    assert value_text("x" * 9, max_str_len=9) == "x" * 9
    assert value_text("x" * 10, max_str_len=9) == "[text of 10 characters, more than max_str_len=9]"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (9.6, "0:10"), (59.5, "1:00"), (3599.9, "1:00:00"), (90061, "25:01:01")]
)
def test_durations(seconds, text):
    assert duration_text(seconds) == text


def test_a_log_line_has_the_step_and_no_operation_count():
    logs = {"loss": 0.41234, "learning_rate": 4.53e-05, "epoch": 0.3, "total_flos": 1e15}
    line = log_line(TrainerState(global_step=50, max_steps=500), logs)
    assert line == "step 50/500  loss 0.4123  learning_rate 4.53e-05  epoch 0.3"
    assert logs["total_flos"] == 1e15
    assert log_line(TrainerState(), {"eval_loss": 1.0}) == "step 0  eval_loss 1"


def test_a_summary_says_what_is_known():
    state = TrainerState(global_step=12, max_steps=12, epoch=3.0)
    assert summary_rows(Arguments(), state) == {"steps": "12", "epochs": "3", "output": "out"}


def test_a_summary_of_a_run_that_stopped_early_with_a_best_model():
    state = TrainerState(global_step=12, max_steps=40, epoch=1.5, best_metric=0.97, best_global_step=8)
    state.best_model_checkpoint = "out/checkpoint-8"
    state.log_history = [
        {"train_runtime": 1.0, "train_loss": 9.0, "train_samples_per_second": 1.0},
        {"loss": 1.0},
        {"train_runtime": 61.2, "train_loss": 0.25, "train_samples_per_second": 1234.5},
        {"eval_loss": 0.5},
    ]
    assert summary_rows(Arguments(), state) == {
        "steps": "12 of 40",
        "epochs": "1.5",
        "train_loss": "0.25",
        "runtime": "1:01",
        "samples/s": "1234",
        "best": "eval_accuracy 0.97 at step 8 (out/checkpoint-8)",
        "output": "out",
    }
