"""Traces of real runs, read back."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from surestep import Trainer, TrainerCallback, TrainingArguments
from surestep.callbacks.profiler import ProfilerCallback
from surestep.errors import ArgumentError
from surestep.training.state import TrainerControl, TrainerState

DATA = [{"x": torch.full((4,), float(i)), "labels": torch.zeros(1)} for i in range(32)]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, x, labels=None):
        return {"loss": nn.functional.mse_loss(self.linear(x), labels)}


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop |= state.global_step == self.step


class FailAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise RuntimeError("boom")


def trainer(folder: Path, *callbacks, **changes) -> Trainer:
    values = {"max_steps": 8, "per_device_train_batch_size": 4, "save_strategy": "no", "optim": "sgd"}
    args = TrainingArguments(str(folder), use_cpu=True, disable_tqdm=True, **(values | changes))
    return Trainer(Net(), args, train_dataset=DATA, callbacks=list(callbacks))


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "profile").glob("*"))


def forwards(trace: Path) -> int:
    """Return how many forward passes of the model a trace holds."""
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    return sum(event.get("name") == "aten::linear" for event in events)


@pytest.mark.parametrize(
    ("callback", "changes", "first", "last"),
    [
        (lambda: ProfilerCallback(steps=2, skip=3), {}, 4, 5),
        (lambda: ProfilerCallback(steps=1, skip=0), {}, 1, 1),
        # Too short a run is recorded at its end, one shorter than what is asked for as a whole.
        (lambda: ProfilerCallback(steps=2, skip=100), {}, 7, 8),
        (ProfilerCallback, {}, 4, 8),
        (lambda: ProfilerCallback(steps=20, skip=1), {}, 1, 8),
        (lambda: ProfilerCallback(steps=3, skip=3), {"gradient_accumulation_steps": 2}, 4, 6),
    ],
)
def test_the_trace_holds_the_steps_in_its_name(tmp_path, callback, changes, first, last):
    trainer(tmp_path, callback(), **changes).train()
    name = f"steps-{first}-{last}.rank0"
    assert written(tmp_path) == [f"{name}.json", f"{name}.txt"]
    accumulation = changes.get("gradient_accumulation_steps", 1)
    assert forwards(tmp_path / "profile" / f"{name}.json") == (last - first + 1) * accumulation
    table = (tmp_path / "profile" / f"{name}.txt").read_text(encoding="utf-8")
    assert "aten::linear" in table
    assert "Self CPU %" in table


def test_a_run_that_stops_early_writes_what_there_is(tmp_path):
    trainer(tmp_path, ProfilerCallback(steps=5, skip=1), StopAt(3)).train()
    assert written(tmp_path) == ["steps-2-3.rank0.json", "steps-2-3.rank0.txt"]
    assert forwards(tmp_path / "profile" / "steps-2-3.rank0.json") == 2


@pytest.mark.parametrize("step", [1, 3, 6])
def test_an_error_stops_the_recording(tmp_path, step):
    callback = ProfilerCallback(steps=3, skip=1)
    with pytest.raises(RuntimeError, match="boom"):
        trainer(tmp_path, callback, FailAt(step)).train()
    assert bool(written(tmp_path)) is (step == 6)
    # A recording that went on would not let another one begin.
    with torch.profiler.profile():
        pass
    callback.close()


def test_a_second_training_is_recorded_as_well(tmp_path):
    run = trainer(tmp_path, ProfilerCallback(steps=1, skip=2))
    run.train()
    (tmp_path / "profile" / "steps-3-3.rank0.json").unlink()
    run.train()
    assert forwards(tmp_path / "profile" / "steps-3-3.rank0.json") == 1


@pytest.mark.parametrize(("steps", "name"), [(2, "steps-6-7"), (20, "steps-5-8")])
def test_a_resumed_run_skips_its_own_first_steps(tmp_path, steps, name):
    trainer(tmp_path, save_strategy="steps", save_steps=4).train()
    run = trainer(tmp_path, ProfilerCallback(steps=steps, skip=1))
    run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert written(tmp_path) == [f"{name}.rank0.json", f"{name}.rank0.txt"]


def test_options_reach_the_profiler(tmp_path):
    trainer(tmp_path, ProfilerCallback(steps=1, skip=0, record_shapes=True)).train()
    trace = (tmp_path / "profile" / "steps-1-1.rank0.json").read_text(encoding="utf-8")
    assert "Input Dims" in trace


def test_each_rank_writes_its_own(tmp_path):
    callback, state, control = ProfilerCallback(steps=1, skip=0), TrainerState(max_steps=3), TrainerControl()
    args = SimpleNamespace(output_dir=str(tmp_path), process_index=3)
    callback.on_train_begin(args, state, control)
    callback.on_step_begin(args, state, control)
    state.global_step = 1
    callback.on_step_end(args, state, control)
    assert written(tmp_path) == ["steps-1-1.rank3.json", "steps-1-1.rank3.txt"]


@pytest.mark.parametrize(("steps", "skip"), [(0, 1), (-1, 1), (1, -1)])
def test_nonsense_is_refused(steps, skip):
    with pytest.raises(ArgumentError, match=rf"ProfilerCallback\(steps={steps}, skip={skip}\)"):
        ProfilerCallback(steps, skip)
