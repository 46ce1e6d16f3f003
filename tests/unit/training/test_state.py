"""State and control: what is saved is read by the original, and what the original saved is read here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers

from surestep.errors import CheckpointError
from surestep.training.state import CallbackStates, ExportableState, TrainerControl, TrainerState


class Counter(ExportableState):
    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.seen = 0

    def state(self) -> dict[str, Any]:
        return {"args": {"start": self.start}, "attributes": {"seen": self.seen}}


def full_state(kind: type) -> Any:
    return kind(
        epoch=1.5,
        global_step=30,
        max_steps=60,
        logging_steps=10,
        log_history=[{"loss": 0.5, "step": 10}],
        best_metric=0.25,
        best_global_step=20,
        best_model_checkpoint="out/checkpoint-20",
        trial_params={"learning_rate": 1e-3},
    )


def test_fields_and_defaults_are_those_of_the_original() -> None:
    theirs = {
        field.name: getattr(transformers.TrainerState(), field.name)
        for field in dataclasses.fields(transformers.TrainerState)
    }
    ours = dataclasses.asdict(TrainerState())

    assert ours == theirs


def test_the_original_reads_our_file(tmp_path: Path) -> None:
    full_state(TrainerState).save_to_json(tmp_path / "state.json")

    read = transformers.TrainerState.load_from_json(str(tmp_path / "state.json"))
    assert read == full_state(transformers.TrainerState)


def test_we_read_the_file_of_the_original(tmp_path: Path) -> None:
    full_state(transformers.TrainerState).save_to_json(str(tmp_path / "state.json"))

    assert TrainerState.load_from_json(tmp_path / "state.json") == full_state(TrainerState)


def test_the_file_equals_that_of_the_original(tmp_path: Path) -> None:
    full_state(TrainerState).save_to_json(tmp_path / "ours.json")
    full_state(transformers.TrainerState).save_to_json(str(tmp_path / "theirs.json"))

    assert (tmp_path / "ours.json").read_bytes() == (tmp_path / "theirs.json").read_bytes()


@pytest.mark.parametrize("content", ["", "{", '{"no_such_key": 1}', "[1, 2]", b"\xff\xfe"])
def test_a_file_that_holds_no_state_is_told(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(
        CheckpointError, match=r"trainer_state.json' does not hold a trainer state.*Resume from another"
    ):
        TrainerState.load_from_json(path)


@pytest.mark.parametrize(
    ("interval", "max_steps", "steps"),
    [(500, 1000, 500), (0.1, 1000, 100), (0.1, 1001, 101), (0.5, 3, 2), (1, 10, 1), (7.0, 100, 7)],
)
def test_an_interval_below_one_is_a_share_of_the_run(interval: float, max_steps: int, steps: int) -> None:
    args = SimpleNamespace(logging_steps=interval, eval_steps=interval, save_steps=interval)
    ours, theirs = TrainerState(), transformers.TrainerState()
    ours.compute_steps(args, max_steps)
    theirs.compute_steps(args, max_steps)

    assert (ours.logging_steps, ours.eval_steps, ours.save_steps) == (steps, steps, steps)
    assert (theirs.logging_steps, theirs.eval_steps, theirs.save_steps) == (steps, steps, steps)
    assert type(ours.save_steps) is int


def test_an_interval_of_none_leaves_the_default() -> None:
    state = TrainerState()
    state.compute_steps(SimpleNamespace(logging_steps=10, eval_steps=None, save_steps=10), 100)

    assert state.eval_steps == 500


def test_callbacks_are_remembered_as_the_original_does() -> None:
    counters = [Counter(1), Counter(2)]
    counters[1].seen = 5
    ours = TrainerState(stateful_callbacks=[*counters, TrainerControl(should_save=True)])

    one, two = ours.stateful_callbacks["Counter"]
    assert Counter.from_state(one).start == 1
    assert vars(Counter.from_state(two)) == {"start": 2, "seen": 5}
    assert ours.stateful_callbacks["TrainerControl"]["args"]["should_save"] is True


def test_three_of_one_class_are_a_list_and_one_is_not() -> None:
    state = TrainerState()
    state.remember([Counter(1), Counter(2), Counter(3)])
    assert [item["args"]["start"] for item in state.stateful_callbacks["Counter"]] == [1, 2, 3]

    state.remember([Counter(4)])
    assert state.stateful_callbacks == {"Counter": {"args": {"start": 4}, "attributes": {"seen": 0}}}


def test_a_remembered_state_can_be_written_and_read_by_both(tmp_path: Path) -> None:
    TrainerState(stateful_callbacks=[Counter(1), TrainerControl()]).save_to_json(tmp_path / "state.json")
    content = json.loads((tmp_path / "state.json").read_text())

    assert TrainerState.load_from_json(tmp_path / "state.json").stateful_callbacks == content["stateful_callbacks"]
    theirs = transformers.TrainerState.load_from_json(str(tmp_path / "state.json"))
    control = transformers.TrainerControl.from_state(theirs.stateful_callbacks["TrainerControl"])
    assert control == transformers.TrainerControl()


def test_the_control_goes_through_its_state() -> None:
    control = TrainerControl(should_epoch_stop=True, should_log=True)

    assert TrainerControl.from_state(control.state()) == control
    assert control.state() == transformers.TrainerControl(should_epoch_stop=True, should_log=True).state()


def test_a_callback_without_a_state_is_told_to_define_one() -> None:
    with pytest.raises(NotImplementedError, match=r"ExportableState must define state\(\)"):
        ExportableState().state()


def test_what_callbacks_held_is_put_back_into_the_same_objects() -> None:
    class Listing(ExportableState):
        def __init__(self) -> None:
            self.seen: list[int] = [1]

        def state(self) -> dict[str, Any]:
            return {"args": {}, "attributes": {"seen": self.seen}}

    counter, listing, forgetful = Counter(1), Listing(), SimpleNamespace(seen=3)
    counter.seen = 5
    held = CallbackStates([counter, forgetful, listing])
    for _ in range(2):
        counter.seen, forgetful.seen = 7, 8
        # What is put back is not what is held: it changes, and can be put back again.
        listing.seen.append(2)
        held.put_back()

        assert (counter.seen, forgetful.seen, listing.seen) == (5, 8, [1])
