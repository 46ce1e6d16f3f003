"""What TensorBoard itself reads back from the files."""

import math
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers.integrations.integration_utils import default_logdir
from transformers.integrations.integration_utils import rewrite_logs as their_rewrite_logs

from surestep import Trainer, TrainingArguments
from surestep.callbacks.trackers.entries import rewrite_logs
from surestep.callbacks.trackers.tensorboard import TensorBoardCallback
from surestep.training.state import TrainerControl, TrainerState

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
CONTROL = TrainerControl()


@pytest.fixture(autouse=True)
def no_folder_asked(monkeypatch):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)


@pytest.fixture
def args(tmp_path):
    return SimpleNamespace(
        output_dir=str(tmp_path / "out"), run_name=None, tensorboard_dir=None, to_json_string=lambda: '{"seed": 42}'
    )


def read(folder: str | Path):
    return accumulator.EventAccumulator(str(folder)).Reload()


def scalars(folder: str | Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(folder).Scalars(name)]


def wait_for_the_next_second() -> None:
    """Files of events are read in the order of their names, which have the second of their making."""
    now = int(time.time())
    while int(time.time()) == now:
        time.sleep(0.05)


def run(args, steps, *, start: int = 0, **state_fields) -> TensorBoardCallback:
    callback, state = TensorBoardCallback(), TrainerState(global_step=start, **state_fields)
    callback.on_train_begin(args, state, CONTROL)
    for step in steps:
        state.global_step = step
        callback.on_log(args, state, CONTROL, logs={"loss": step + start / 100})
    callback.on_train_end(args, state, CONTROL)
    return callback


def test_names_equal_the_originals():
    logs = {"loss": 1, "eval_loss": 2, "test_eval_f1": 3, "evaluation": 4, "my_test_x": 5, "eval_": 6}
    assert rewrite_logs(logs) == their_rewrite_logs(logs)


def test_log_arguments_and_configuration_are_read_back(args):
    callback, state = TensorBoardCallback(), TrainerState()
    model = SimpleNamespace(config=SimpleNamespace(to_json_string=lambda: '{"layers": 2}'))
    callback.on_train_begin(args, state, CONTROL, model=model)
    state.global_step = 5
    logs = {"loss": 0.5, "count": 3, "grad_norm": math.nan, "note": "words"}
    callback.on_log(args, state, CONTROL, logs=logs)
    callback.on_log(args, state, CONTROL, logs={"eval_accuracy": 0.75, "test_accuracy": 0.5})
    found = read(callback.logging_dir)
    assert set(found.Tags()["scalars"]) == {
        "train/loss",
        "train/count",
        "train/grad_norm",
        "eval/accuracy",
        "test/accuracy",
    }
    assert scalars(callback.logging_dir, "eval/accuracy") == [(5, 0.75)]
    assert math.isnan(scalars(callback.logging_dir, "train/grad_norm")[0][1])
    texts = {name: found.Tensors(name)[0].tensor_proto.string_val[0].decode() for name in found.Tags()["tensors"]}
    assert texts == {
        "args/text_summary": '{"seed": 42}',
        "model_config/text_summary": '{"layers": 2}',
        "train/note/text_summary": "words",
    }
    callback.on_train_end(args, state, CONTROL)
    assert list(logs) == ["loss", "count", "grad_norm", "note"]


def test_what_is_no_number_is_named_and_left_out(args, caplog):
    callback, state = TensorBoardCallback(), TrainerState()
    callback.on_train_begin(args, state, CONTROL, model=SimpleNamespace(config=None))
    for _ in range(2):
        callback.on_log(args, state, CONTROL, logs={"per_class": [1, 2], "loss": 1.0})
    callback.close()
    assert caplog.text.count("'train/per_class' is a list") == 1
    assert scalars(callback.logging_dir, "train/loss") == [(0, 1.0), (0, 1.0)]


def test_folder_of_the_original(args):
    before = default_logdir()
    callback = run(args, [1])
    names = {str(Path(args.output_dir) / name) for name in (before, default_logdir())}
    assert callback.logging_dir in names


def test_folder_of_the_environment(args, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "~/board")
    run(args, [1])
    assert scalars(tmp_path / "board", "train/loss") == [(1, 1.0)]
    assert not (Path(args.output_dir) / "runs").exists()


def test_folder_of_the_arguments_goes_before_the_environments(args, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "other"))
    args.tensorboard_dir = "~/board"
    callback = run(args, [1])
    assert callback.logging_dir == str(tmp_path / "board")
    assert scalars(tmp_path / "board", "train/loss") == [(1, 1.0)]
    assert not (tmp_path / "other").exists()
    assert not (Path(args.output_dir) / "runs").exists()


def test_a_run_resumed_in_the_folder_of_the_arguments_goes_on_there(args, tmp_path):
    args.tensorboard_dir = str(tmp_path / "board")
    run(args, [1, 2, 3])
    wait_for_the_next_second()
    run(args, [2, 3], start=1)
    expected = [(1, 1.0), (2, pytest.approx(2.01)), (3, pytest.approx(3.01))]
    assert scalars(tmp_path / "board", "train/loss") == expected


def test_an_evaluation_alone_is_written_to_the_folder_of_the_arguments(args, tmp_path):
    args.tensorboard_dir = str(tmp_path / "board")
    callback = TensorBoardCallback()
    callback.on_log(args, TrainerState(global_step=2), CONTROL, logs={"eval_loss": 0.5})
    callback.close()
    assert scalars(tmp_path / "board", "eval/loss") == [(2, 0.5)]


def test_the_setting_of_a_run_says_where(tmp_path):
    arguments = TrainingArguments(
        str(tmp_path / "out"),
        max_steps=2,
        logging_steps=1,
        save_strategy="no",
        report_to="tensorboard",
        tensorboard_dir=str(tmp_path / "board"),
        use_cpu=True,
        disable_tqdm=True,
    )

    class Net(torch.nn.Linear):
        def forward(self, x, labels=None):
            return {"loss": super().forward(x).square().mean()}

    Trainer(Net(2, 1), arguments, train_dataset=[{"x": torch.ones(2), "labels": 0}] * 16).train()
    assert [step for step, _ in scalars(tmp_path / "board", "train/loss")] == [1, 2]
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize("asked", ["nowhere", "in the environment", "in the arguments"])
def test_folder_of_a_trial(args, tmp_path, monkeypatch, asked):
    if asked == "in the environment":
        monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    if asked == "in the arguments":
        args.tensorboard_dir = str(tmp_path / "board")
    callback = run(args, [1], is_hyper_param_search=True, trial_name="run-3")
    folder = Path(callback.logging_dir)
    assert folder.name == "run-3"
    assert folder.parent.parent == Path(args.output_dir) / "runs"


@pytest.mark.parametrize("asked", [False, True])
def test_a_resumed_run_goes_on_and_hides_what_came_after_its_step(args, tmp_path, monkeypatch, asked):
    if asked:
        monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    older = Path(args.output_dir) / "runs" / "older"
    older.mkdir(parents=True)
    (older / "events.out.tfevents.1").touch()
    os.utime(older / "events.out.tfevents.1", (1, 1))
    first = run(args, [1, 2, 3, 4, 5])
    wait_for_the_next_second()
    resumed = run(args, [4, 5, 6], start=3)
    assert resumed.logging_dir == first.logging_dir
    expected = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.03), (5, 5.03), (6, 6.03)]
    assert scalars(first.logging_dir, "train/loss") == [(step, pytest.approx(value)) for step, value in expected]


def test_a_resumed_run_with_nothing_to_go_on_from_begins_a_folder(args):
    callback = run(args, [4], start=3)
    assert scalars(callback.logging_dir, "train/loss") == [(4, pytest.approx(4.03))]


def test_an_evaluation_after_the_training_is_written_beside_it(args):
    callback = run(args, [1, 2])
    callback.on_log(args, TrainerState(global_step=2), CONTROL, logs={"eval_loss": 0.5})
    callback.close()
    callback.close()
    assert scalars(callback.logging_dir, "eval/loss") == [(2, 0.5)]
    assert scalars(callback.logging_dir, "train/loss") == [(1, 1.0), (2, 2.0)]


def test_a_writer_of_the_users_own_is_used(args, tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    callback = TensorBoardCallback(SummaryWriter(str(tmp_path / "mine")))
    callback.on_train_begin(args, TrainerState(), CONTROL)
    callback.on_log(args, TrainerState(global_step=1), CONTROL, logs={"loss": 1.0})
    callback.on_train_end(args, TrainerState(), CONTROL)
    assert scalars(tmp_path / "mine", "train/loss") == [(1, 1.0)]
    assert not (Path(args.output_dir) / "runs").exists()


def test_only_the_first_process_writes(args):
    run(args, [1], is_world_process_zero=False)
    assert not Path(args.output_dir).exists()
