"""The flow against the original's, state by state."""

import dataclasses
import gc
import sys
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.warm import server
from transformers import TrainerControl as TheirControl
from transformers import TrainerState as TheirState
from transformers.trainer_callback import DefaultFlowCallback as TheirFlow
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from surestep.callbacks.flow import DefaultFlowCallback
from surestep.errors import ArgumentError
from surestep.training.state import TrainerControl, TrainerState

ARGUMENTS = st.fixed_dictionaries(
    {
        "logging_strategy": st.sampled_from(list(IntervalStrategy)),
        "logging_first_step": st.booleans(),
        "eval_strategy": st.sampled_from(list(IntervalStrategy)),
        "eval_delay": st.one_of(st.integers(0, 12), st.floats(0, 4)),
        "save_strategy": st.sampled_from(list(SaveStrategy)),
    }
)
INTERVALS = st.fixed_dictionaries(
    {
        "logging_steps": st.integers(1, 7),
        "eval_steps": st.integers(1, 7),
        "save_steps": st.integers(0, 7),
        "max_steps": st.integers(1, 14),
    }
)


def flags(control) -> dict[str, bool]:
    return {name: getattr(control, name) for name in (field.name for field in dataclasses.fields(TrainerControl))}


def plain(arguments: dict) -> SimpleNamespace:
    """The arguments as plain text, as a job file would give them."""
    return SimpleNamespace(**{name: getattr(value, "value", value) for name, value in arguments.items()})


@settings(max_examples=300)
@given(arguments=ARGUMENTS, intervals=INTERVALS, steps_per_epoch=st.integers(1, 5), as_text=st.booleans())
def test_decisions_equal_the_originals(arguments, intervals, steps_per_epoch, as_text):
    theirs, ours = TheirFlow(), DefaultFlowCallback()
    args = SimpleNamespace(**arguments)
    our_args = plain(arguments) if as_text else args
    their_state, our_state = TheirState(**intervals), TrainerState(**intervals)
    ours.on_train_begin(our_args, our_state, TrainerControl())
    for step in range(1, intervals["max_steps"] + 2):
        their_state.global_step = our_state.global_step = step
        their_state.epoch = our_state.epoch = step / steps_per_epoch
        expected, found = TheirControl(), TrainerControl()
        theirs.on_step_end(args, their_state, expected)
        ours.on_step_end(our_args, our_state, found)
        assert flags(found) == flags(expected)
        if step % steps_per_epoch == 0:
            theirs.on_epoch_end(args, their_state, expected)
            ours.on_epoch_end(our_args, our_state, found)
            assert flags(found) == flags(expected)


def quiet(**changes) -> SimpleNamespace:
    values = {
        "logging_strategy": "no",
        "logging_first_step": False,
        "eval_strategy": "no",
        "eval_delay": 0,
        "save_strategy": "no",
    }
    return SimpleNamespace(**(values | changes))


def test_flags_already_set_are_kept():
    control = TrainerControl(True, True, True, True, True)
    flow, state = DefaultFlowCallback(), TrainerState(global_step=3, max_steps=10)
    flow.on_step_end(quiet(), state, control)
    flow.on_epoch_end(quiet(), state, control)
    assert control == TrainerControl(True, True, True, True, True)


def step_end(flow: DefaultFlowCallback, args: SimpleNamespace, step: int) -> TrainerControl:
    return flow.on_step_end(args, TrainerState(global_step=step, max_steps=1000), TrainerControl())


def test_time_budget_ends_with_evaluation_and_save(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    args = quiet(max_time="2h", eval_strategy="steps", save_strategy="steps")
    flow = DefaultFlowCallback()
    flow.on_train_begin(args, TrainerState(), TrainerControl())
    now += 7199.9
    assert step_end(flow, args, 3) == TrainerControl()
    now += 0.1
    ended = TrainerControl(should_training_stop=True, should_evaluate=True, should_save=True)
    assert step_end(flow, args, 4) == ended
    flow.on_train_begin(args, TrainerState(), TrainerControl())
    assert step_end(flow, args, 5) == TrainerControl(), "a second training has a budget of its own"


def test_time_used_travels_in_checkpoints(monkeypatch, tmp_path):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    args, first, second = quiet(max_time="2h"), DefaultFlowCallback(), DefaultFlowCallback()
    first.on_train_begin(args, TrainerState(), TrainerControl())
    now += 5000.0
    first.save_to(tmp_path)
    now = 40.0
    second.load_from(tmp_path)
    assert not second.used_up(args)
    assert second.used_up(quiet(max_time=5000))
    second.on_train_begin(args, TrainerState(global_step=3), TrainerControl())
    now += 2199.0
    assert step_end(second, args, 4) == TrainerControl()
    now += 1.0
    assert step_end(second, args, 5).should_training_stop
    assert second.out_of_time
    second.on_train_begin(args, TrainerState(), TrainerControl())
    assert step_end(second, args, 1) == TrainerControl(), "a run that begins anew has used nothing"


def test_without_a_limit_no_time_is_kept(tmp_path):
    flow = DefaultFlowCallback()
    flow.save_to(tmp_path)
    flow.on_train_begin(quiet(max_time=None), TrainerState(), TrainerControl())
    flow.save_to(tmp_path)
    assert not list(tmp_path.iterdir())
    flow.load_from(tmp_path)
    assert not flow.used_up(quiet(max_time=1))


@pytest.mark.parametrize("max_time", [None, 3600])
def test_time_budget_not_yet_spent_changes_nothing(max_time):
    flow, args = DefaultFlowCallback(), quiet(max_time=max_time)
    flow.on_train_begin(args, TrainerState(), TrainerControl())
    assert step_end(flow, args, 3) == TrainerControl()


def test_a_budget_that_is_none_is_refused():
    with pytest.raises(ArgumentError, match=r"max_time.*soon.*2h"):
        DefaultFlowCallback().on_train_begin(quiet(max_time="soon"), TrainerState(), TrainerControl())


# Trains to step 5 on one of two ranks; only the first has used up its time.
RANK = """
import os, sys
from types import SimpleNamespace
import torch.distributed as dist
from surestep.callbacks.flow import DefaultFlowCallback
from surestep.training.state import TrainerControl, TrainerState
rank, store = int(sys.argv[1]), sys.argv[2]
os.environ.update(RANK=str(rank), WORLD_SIZE="2")
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
args = SimpleNamespace(logging_strategy="no", logging_first_step=False, eval_strategy="no", eval_delay=0,
                       save_strategy="no", max_time=1000, device="cpu")
flow = DefaultFlowCallback()
flow.on_train_begin(args, TrainerState(), TrainerControl())
for step in range(1, 6):
    if (rank, step) in {(0, 3), (1, 2)}:
        flow._deadline = 0.0
    state = TrainerState(global_step=step, max_steps=1000)
    print(step, flow.on_step_end(args, state, TrainerControl()).should_training_stop)
dist.destroy_process_group()
"""


def test_all_ranks_stop_at_the_step_at_which_the_first_says_so(tmp_path):
    ranks = [server().start(["-c", RANK, str(rank), str(tmp_path / "store")]) for rank in range(2)]
    told = [rank.communicate(120) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], told
    assert [out.split() for out, _ in told] == [["1", "False", "2", "False", "3", "True", "4", "True", "5", "True"]] * 2


def test_a_step_calls_no_python_and_keeps_no_memory():
    flow, args = DefaultFlowCallback(), quiet(logging_strategy="steps", eval_strategy="steps", save_strategy="steps")
    state, control = TrainerState(global_step=3, max_steps=10), TrainerControl()
    flow.on_train_begin(args, state, control)
    calls = []
    sys.setprofile(lambda frame, event, argument: calls.append(frame.f_code.co_name) if event == "call" else None)
    try:
        flow.on_step_end(args, state, control)
    finally:
        sys.setprofile(None)
    assert calls == ["on_step_end"]
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(100):
        flow.on_step_end(args, state, control)
    assert sys.getallocatedblocks() - before < 10
