"""A run among several ranks, steps that are left out, and runs that go back or were cut anew."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.unit.training.test_run import run_of, walk

from surestep.training.protocols import Group
from surestep.training.run import LeftOut
from surestep.training.state import TrainerControl
from surestep.training.stretch import Grouping, Stretch


def among(ranks: int, *others: int, **settings: Any) -> tuple[Any, list[int]]:
    """Return a run on the first of several ranks, whose others have so many batches for a step, and what it asked."""
    run, asked = run_of(**settings), list[int]()

    def shares(batches: int) -> tuple[int, ...]:
        asked.append(batches)
        return (batches, *others)

    run.engine = SimpleNamespace(device="device", model=None, ranks=ranks, settle=lambda: True, shares=shares)
    return run, asked


def groups_of(run: Any) -> list[Group]:
    """Go through one epoch; return the groups whole."""
    found = []
    next(run.epochs())
    for group in run.groups():
        found.append(group)
        run.count(group)
    return found


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_ask_each_other_at_the_last_step_of_an_epoch_alone(ranks: int) -> None:
    run, asked = among(ranks, *[1] * (ranks - 1))
    groups = groups_of(run)

    assert [group.shares for group in groups] == [(2,) * ranks, (2,) * ranks, (1,) * ranks]
    assert [group.rounds for group in groups] == [2, 2, 1]
    assert asked == [1]


def test_the_last_step_of_a_long_epoch_is_known() -> None:
    run, asked = among(2, 1, batches=600, accumulation=1)
    assert len(groups_of(run)) == 600
    assert asked == [1]


def test_ranks_that_are_not_sure_ask_at_every_step() -> None:
    run, asked = among(2, 2)
    run.evenly_shared = False

    assert [group.shares for group in groups_of(run)] == [(2, 2), (2, 2), (1, 2)]
    assert asked == [2, 2, 1]


def test_one_process_asks_nobody() -> None:
    run, asked = among(1)
    run.evenly_shared = False

    assert [group.shares for group in groups_of(run)] == [None] * 3
    assert asked == []


def test_a_step_takes_as_many_rounds_as_the_rank_with_most() -> None:
    # The others have one batch more at the end of the epoch.
    run, _ = among(3, 2, 0, batches=6, held=5)
    groups = groups_of(run)

    assert groups[-1] == ([(0, 4)], None, 2, (1, 2, 0), False)
    assert (run.stretch.done, run.position.samples, run.trainer.state.epoch) == (6, 18, 1.0)


def test_a_rank_without_a_batch_takes_part_in_the_step_of_the_others() -> None:
    run, asked = among(2, 1, batches=4, held=2)
    groups = groups_of(run)

    assert [(len(group.batches), group.rounds) for group in groups] == [(2, 2), (0, 1), (0, 1)]
    assert asked == [0, 0]
    assert not run.trainer.control.should_training_stop


def test_the_run_ends_where_no_rank_has_a_batch() -> None:
    run, _ = among(2, 0, stream=5, held=0)
    run.evenly_shared = False

    assert walk(run) == []
    assert run.trainer.control.should_training_stop


# Steps that are left out


def test_a_place_that_was_gone_back_behind_is_counted_and_not_tried_again() -> None:
    run = run_of()
    run.left_out = LeftOut(steps=3, places={(0, 6), (1, 12)})
    groups = []
    for _ in run.epochs():
        for group in run.groups():
            groups.append(group)
            run.count(group)

    assert [group.left_out for group in groups] == [False, True, False, False, False, True]
    assert groups[1] == ([], None, 2, None, True)
    assert groups[5] == ([], None, 1, None, True)
    assert (run.left_out.steps, run.tally.left_out, run.tally.steps) == (5, 2, 6)
    assert run.trainer.state.global_step == 6
    assert run.position.epoch == 2


def test_what_is_left_out_comes_back() -> None:
    left_out, other = LeftOut(7, {(1, 12), (0, 6), (0, 3)}, went_back=(4, 2)), LeftOut()
    state = left_out.state_dict()
    other.load_state_dict(state)

    assert state == {"steps": 7, "places": [[0, 3], [0, 6], [1, 12]], "went_back": [4, 2]}
    assert other == left_out


def test_a_counted_step_keeps_its_loss() -> None:
    run = run_of()
    for loss in (1.0, 2.0):
        run.tally.add(torch.tensor(loss))
        run.count(Group([], None, 2))
    run.tally.add(torch.tensor(100.0))
    run.tally.drop_open()

    assert run.tally.drain() == 1.5


def test_steps_left_out_count_in_no_mean() -> None:
    run = run_of()
    for loss, left_out in ((1.0, False), (0.0, True), (4.0, False), (0.0, True)):
        run.tally.add(torch.tensor(loss))
        run.count(Group([], None, 1, left_out=left_out))

    assert (run.tally.steps, run.tally.left_out, run.left_out.steps) == (4, 2, 2)
    assert run.tally.mean_loss() == run.tally.drain() == 2.5


# Runs that go back, and what is settled


def test_the_engine_is_settled_once_an_epoch_is_read() -> None:
    run, order = run_of(), []

    def settle() -> bool:
        order.append(("settled", run.trainer.state.global_step, run.epoch_over))
        return True

    run.engine = SimpleNamespace(device="device", model=None, ranks=1, settle=settle)
    walk(run)

    assert order == [("settled", 3, False), ("settled", 6, False)]


@pytest.mark.parametrize("late", [False, True], ids=["between steps", "at the end of the epoch"])
def test_a_run_that_went_back_begins_what_is_left_of_the_epoch_anew(late: bool) -> None:
    run, seen, back = run_of(), [], [True]

    def go_back() -> bool:
        if back and (late or run.trainer.state.global_step == 2):
            back.clear()
            run.trainer.state.global_step, run.stretch.done, run.position.samples = 1, 2, 6
            run.rewound = True
            return False
        return True

    run.engine = SimpleNamespace(device="device", model=None, ranks=1, settle=go_back if late else lambda: True)
    for epoch in run.epochs():
        for group in run.groups():
            seen.append((epoch, group.batches[0][1]))
            run.count(group)
            if not late:
                go_back()
        assert run.epoch_over is not run.rewound

    first = [(0, 0), (0, 2), (0, 4)] if late else [(0, 0), (0, 2)]
    assert seen == [*first, (0, 2), (0, 4), (1, 0), (1, 2), (1, 4)]


def test_a_run_that_was_told_to_stop_stays_in_its_epoch() -> None:
    run = run_of()
    epochs = run.epochs()
    next(epochs)
    run.trainer.control.should_training_stop = True

    assert next(epochs) == run.position.epoch == 0


def test_places_between_steps_have_numbers() -> None:
    run, places = run_of(num_train_epochs=1.0), []
    places.append(run.place)
    for _ in run.epochs():
        for group in run.groups():
            run.count(group)
            places.append(run.place)
        places.append(run.place)

    assert places == [0, 2, 4, 6, 7]


@pytest.mark.parametrize(("samples", "over", "within"), [(0, False, False), (6, False, True), (6, True, False)])
def test_a_run_is_within_an_epoch_when_steps_of_it_are_done_and_left(samples: int, over: bool, within: bool) -> None:
    run = run_of()
    run.position.samples, run.epoch_over = samples, over

    assert run.within_epoch is within


@pytest.mark.parametrize(
    ("at_end", "flags", "steps", "found"),
    [
        (True, {}, 0, (False, False, False)),
        (True, {"should_training_stop": True}, 0, (True, False, False)),
        (True, {"should_epoch_stop": True}, 6, (False, False, False)),
        (False, {}, 5, (False, False, False)),
        (False, {}, 6, (False, True, True)),
        (False, {"should_epoch_stop": True}, 1, (False, True, True)),
        (False, {"should_training_stop": True}, 1, (False, True, True)),
    ],
)
def test_what_is_left_once_what_was_due_is_done(
    at_end: bool, flags: dict[str, bool], steps: int, found: tuple[bool, bool, bool]
) -> None:
    run = run_of()
    run.trainer.state.global_step, run.trainer.control = steps, TrainerControl(**flags)
    run.go_on(at_end=at_end)

    assert (run.ended, run.epoch_over, run.end_left) == found


def test_the_end_that_is_left_of_a_finished_run_is_served_once() -> None:
    run = run_of(num_train_epochs=1.0)
    run.trainer.state.global_step, run.epoch_over, run.end_left = 3, True, True
    run.read = lambda position: pytest.fail("every step is done")

    assert [list(run.groups()) for _ in run.epochs()] == [[]]
    assert not run.end_left


def test_an_ended_run_has_no_epoch() -> None:
    run = run_of()
    run.ended = True

    assert run.finished
    assert list(run.epochs()) == []


@pytest.mark.parametrize(("done", "epoch"), [(5, 1), (7, 1), (4, 0)])
def test_a_stopped_run_past_its_batches_goes_on_with_the_next_epoch(done: int, epoch: int) -> None:
    run = run_of()
    run.stretch, run.epoch_over = Stretch(5, done=done), True
    run.trainer.control.should_training_stop = True
    run.settle()

    assert (run.position.epoch, run.epoch_over) == (epoch, False)


def test_a_stream_is_never_complete() -> None:
    run = run_of(stream=2)
    run.stretch.done = run.stretch.batches
    run.settle()

    assert not run.epoch_over
    assert run.position.epoch == 0


# How samples are grouped, and the state


class Cutting:
    def __init__(self, samples: int | None) -> None:
        self.samples_per_batch = samples
        self.windows: dict[int, Any] = {}

    def window(self, epoch: int) -> list[int]:
        return [epoch, 8]

    def keep_window(self, epoch: int, window: Any) -> None:
        self.windows[epoch] = window


class Memory:
    """A part with a state."""

    def __init__(self, value: int) -> None:
        self.value, self.device = value, None

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value}

    def load_state_dict(self, state: Any, device: Any = None) -> None:
        self.value, self.device = state["value"], device


@pytest.mark.parametrize(("known", "samples"), [(None, 3), (5, 5)])
def test_a_batch_has_the_samples_that_the_loader_knows_of(known: int | None, samples: int) -> None:
    run = run_of()
    run.cutting = None if known is None else Cutting(known)
    run.__post_init__()
    groups_of(run)

    assert run.grouping == Grouping(samples, accumulation=2, ranks=1)
    assert run.position.samples == 5 * samples


def test_every_part_comes_back() -> None:
    run, other = run_of(), run_of()
    for one, value in ((run, 1), (other, 0)):
        one.reader, one.metrics, one.cutting = Memory(value), Memory(value + 10), Cutting(3)
    run.plan = run.plan.lengthened(2, 1)
    run.stretch, run.epoch_over = Stretch(8, start=12, share=0.25, done=3), True
    run.position.epoch, run.position.samples = 1, 21
    run.left_out, run.interrupted = LeftOut(2, {(0, 3)}), {"signal": 15}
    run.random_before_epoch = {"cpu": torch.get_rng_state()}
    state = run.state_dict()
    other.load_state_dict(state)

    assert state["more"] == [2, 1]
    assert state["grouping"] == {"samples": 3, "accumulation": 2, "ranks": 1}
    assert other.state_dict() == state
    assert (other.plan, other.stretch) == (run.plan, run.stretch)
    assert other.cutting.windows == {1: [1, 8]}
    assert (other.reader.value, other.metrics.value, other.metrics.device) == (1, 11, "device")


def test_parts_without_a_saved_state_and_states_without_a_part_are_passed_over() -> None:
    run = run_of()
    state = run.state_dict()
    run.reader, run.metrics = Memory(1), Memory(2)
    run.load_state_dict(state)
    assert (run.reader.value, run.metrics.value) == (1, 2)

    run.reader = run.metrics = None
    run.load_state_dict(state | {"reader": {"value": 3}, "metrics": {"value": 4}})
    assert run.reader is run.metrics is None


def test_an_epoch_cut_anew_is_whole_again_in_the_next() -> None:
    run = run_of()
    run.stretch = Stretch(4, start=8, share=0.5)
    epochs = []
    for _ in run.epochs():
        for group in run.groups():
            run.count(group)
            epochs.append(run.trainer.state.epoch)

    assert epochs == [0.75, 1.0, 1.4, 1.8, 2.0]
    assert run.stretch == Stretch(5)
