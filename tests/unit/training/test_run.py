"""A run's progress through its batches: epochs, groups, counts, and what comes of a resume."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from surestep.data.position import DataPosition
from surestep.engine.engine import Watch
from surestep.training.plan import Plan
from surestep.training.run import Run
from surestep.training.state import TrainerControl, TrainerState
from surestep.training.tally import Tally


class Fetcher:
    """Fetches groups as a trainer does, and notes what it was asked for."""

    def __init__(self) -> None:
        self.state, self.control = TrainerState(), TrainerControl()
        self.asked: list[tuple[int, Any]] = []

    def get_batch_samples(self, batches: Iterator[Any], num_batches: int, device: Any) -> tuple[list[Any], None]:
        self.asked.append((num_batches, device))
        return list(islice(batches, num_batches)), None


def run_of(batches: int = 5, *, held: int | None = None, stream: int | None = None, **settings: Any) -> Any:
    """A run whose plan says `batches`, or a stream of `stream` steps; its reader holds `held` batches an epoch."""
    accumulation = settings.pop("accumulation", 2)
    usual = {"num_train_epochs": 2.0, "max_steps": -1 if stream is None else stream}
    plan = Plan.make(
        batches=batches if stream is None else None,
        examples=None,
        accumulation=accumulation,
        total_batch_size=3 * accumulation,
        **{**usual, **settings},
    )
    holds = batches if held is None else held
    run = Run(
        trainer=Fetcher(),
        plan=plan,
        engine=SimpleNamespace(device="device", model=None, ranks=1, settle=lambda: True, watch=Watch()),
        events=None,
        tally=Tally(torch.device("cpu")),
        position=DataPosition(seed=1),
        read=lambda position: iter([(position.epoch, number) for number in range(run.stretch.done, holds)]),
    )
    return run


def walk(run: Any) -> list[list[Any]]:
    """Go through the run as the loop does; return the groups."""
    groups = []
    for _ in run.epochs():
        for group in run.groups():
            groups.append(group[0])
            run.count(group)
            if run.leaving_epoch:
                break
        if run.trainer.control.should_training_stop:
            break
    return groups


def test_every_batch_comes_once_in_groups_that_never_cross_an_epoch() -> None:
    run = run_of()

    assert [[number for _, number in group] for group in walk(run)] == [[0, 1], [2, 3], [4]] * 2
    assert [number for number, _ in run.trainer.asked] == [2, 2, 1] * 2
    assert {device for _, device in run.trainer.asked} == {"device"}
    assert run.trainer.state.global_step == 6
    assert run.finished


def test_the_epoch_is_a_real_number() -> None:
    run, epochs = run_of(), []
    for _ in run.epochs():
        for group in run.groups():
            run.count(group)
            epochs.append(run.trainer.state.epoch)

    assert epochs == [2 / 5, 4 / 5, 1.0, 1 + 2 / 5, 1 + 4 / 5, 2.0]


def test_samples_are_counted_over_all_ranks_and_accumulated_batches() -> None:
    run, samples = run_of(), []
    for _ in run.epochs():
        for group in run.groups():
            run.count(group)
            samples.append((run.position.epoch, run.position.samples))

    assert samples == [(0, 6), (0, 12), (0, 15), (1, 6), (1, 12), (1, 15)]
    assert (run.position.epoch, run.position.samples, run.stretch.done) == (2, 0, 0)


def test_the_run_ends_in_the_middle_of_an_epoch() -> None:
    assert len(walk(run_of(max_steps=4))) == 4
    assert len(walk(run_of(num_train_epochs=0.1))) == 1


def test_a_run_past_its_plan_is_finished() -> None:
    run = run_of(max_steps=4)
    run.trainer.state.global_step = 5

    assert run.finished
    assert walk(run) == []


def test_meters_see_every_batch_once_its_step_is_done() -> None:
    run, seen = run_of(num_train_epochs=1.0), []
    run.meters = [lambda batch: seen.append(("one", batch[1])), lambda batch: seen.append(("two", batch[1]))]
    walk(run)

    assert [number for name, number in seen if name == "one"] == [0, 1, 2, 3, 4]
    assert [number for name, number in seen if name == "two"] == [0, 1, 2, 3, 4]


def test_a_loader_that_ends_early_gives_a_smaller_group_and_the_next_epoch() -> None:
    run = run_of(batches=6, held=3)

    assert [[number for _, number in group] for group in walk(run)] == [[0, 1], [2]] * 2


def test_a_stream_that_can_be_read_again_is() -> None:
    run = run_of(held=3, stream=5)

    assert walk(run) == [
        [(0, 0), (0, 1)],
        [(0, 2)],
        [(1, 0), (1, 1)],
        [(1, 2)],
        [(2, 0), (2, 1)],
    ]


def test_a_stream_that_ended_for_good_ends_the_run_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    run = run_of(held=3, stream=5)
    run.read = lambda position: iter(range(4 if position.epoch == 0 else 0))

    assert len(walk(run)) == 2
    assert run.trainer.control.should_training_stop
    assert "not a single batch in epoch 1, so training stops at step 2 of 5" in caplog.text


def test_an_epoch_left_on_request_is_followed_by_the_next() -> None:
    run, groups = run_of(), []
    for _ in run.epochs():
        for group in run.groups():
            run.count(group)
            groups.append(group[0])
            run.trainer.control.should_epoch_stop = True
            if run.leaving_epoch:
                break
        run.trainer.control.should_epoch_stop = False

    assert groups == [[(0, 0), (0, 1)], [(1, 0), (1, 1)]]


def test_a_run_left_on_request_keeps_its_position() -> None:
    run = run_of()
    for _ in run.epochs():
        for group in run.groups():
            run.count(group)
            run.trainer.control.should_training_stop = True
            if run.leaving_epoch:
                break
        break

    assert (run.position.epoch, run.position.samples, run.stretch.done) == (0, 6, 2)


@pytest.mark.parametrize("step", range(6))
def test_a_run_goes_on_where_its_state_was_taken(step: int) -> None:
    whole = walk(run_of())
    run, resumed = run_of(), run_of()
    done = 0
    for _ in run.epochs():
        for group in run.groups():
            if done == step:
                break
            run.count(group)
            done += 1
        if done == step:
            break
    state = run.state_dict()
    resumed.load_state_dict(state)
    resumed.trainer.state.global_step = step
    resumed.settle()

    assert resumed.state_dict()["tally"] == state["tally"]
    assert walk(resumed) == whole[step:]


def test_generators_are_restored_once_the_first_group_is_there() -> None:
    run, order = run_of(), []
    run.after_fetch = lambda: order.append("restored")
    fetch = run.trainer.get_batch_samples

    def noted(*args: Any) -> Any:
        order.append("fetched")
        return fetch(*args)

    run.trainer.get_batch_samples = noted
    walk(run)

    assert order[:3] == ["fetched", "restored", "fetched"]
    assert order.count("restored") == 1


def settled(run: Any, *, batches_done: int, epoch_over: bool, **flags: bool) -> tuple[int, int, bool]:
    """Take a state with these properties up again; return epoch, batches done and whether only the end is left."""
    stretch = run.state_dict()["stretch"] | {"done": batches_done}
    state = run.state_dict() | {"stretch": stretch, "epoch_over": epoch_over}
    run.load_state_dict(state)
    run.trainer.control = TrainerControl(**flags)
    run.settle()
    return run.position.epoch, run.stretch.done, run.epoch_over


def test_what_is_left_of_an_epoch_on_resume() -> None:
    whole = 5
    assert settled(run_of(), batches_done=2, epoch_over=False) == (0, 2, False)
    assert settled(run_of(), batches_done=whole, epoch_over=False) == (0, whole, True)
    assert settled(run_of(), batches_done=whole, epoch_over=True) == (1, 0, False)
    assert settled(run_of(), batches_done=2, epoch_over=False, should_epoch_stop=True) == (0, 2, True)
    assert settled(run_of(), batches_done=2, epoch_over=True) == (1, 0, False)
    assert settled(run_of(), batches_done=2, epoch_over=True, should_training_stop=True) == (0, 2, False)
    assert settled(run_of(), batches_done=whole, epoch_over=True, should_training_stop=True) == (1, 0, False)


def test_an_epoch_of_which_only_the_end_is_left_reads_nothing() -> None:
    run, order = run_of(), []
    run.epoch_over, run.stretch.done = True, 5
    run.before_reading = lambda: order.append("restored")
    run.read = lambda position: order.append("read") or iter([(position.epoch, number) for number in range(5)])
    groups = walk(run)

    assert order == ["restored", "read"]
    assert [group[0][0] for group in groups] == [1, 1, 1]


def test_generators_are_put_back_before_the_loader_begins() -> None:
    run = run_of()
    run.before_reading = lambda: torch.manual_seed(1)
    run.after_fetch = lambda: torch.manual_seed(2)
    run.read = lambda position: iter([torch.rand(()).item() for _ in range(5)])
    next(run.epochs())
    batches = next(run.groups()).batches

    generator = torch.Generator().manual_seed(1)
    assert torch.equal(run.random_before_epoch["cpu"], generator.get_state())
    assert batches == [torch.rand((), generator=generator).item() for _ in range(2)]
    assert torch.initial_seed() == 2
