"""Everything that one call of `train` works with, and its progress through the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from torch import Generator, Tensor

from surestep.data.position import DataPosition
from surestep.logs import get_logger
from surestep.runtime.random import capture_random_state, host_random
from surestep.training.events import Events
from surestep.training.plan import Plan
from surestep.training.protocols import Batch, Group, StepRunner, Steps
from surestep.training.stretch import Grouping, Stretch
from surestep.training.tally import Tally

if TYPE_CHECKING:
    from surestep.data.cutting import Cutting
    from surestep.metrics.streaming import StreamingMetrics

logger = get_logger(__name__)

# Called with each micro-batch once its step is done: counts tokens, floating-point operations.
Meter = Callable[[Batch], Any]
# Gives the batches of an epoch, from the position on.
Reader = Callable[[DataPosition], Iterator[Batch]]


class Stateful(Protocol):
    """A part with a state of its own."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state, as plain data and tensors."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave."""


@dataclass
class LeftOut:
    """The steps that a run has left out because a loss or gradient was not finite; a checkpoint holds them.

    `places` are those that a run went back behind: epoch, and the samples of it before the step. They are not tried
    again. `went_back` is the step that it went back for last, and how many such steps came in a row.
    """

    steps: int = 0
    places: set[tuple[int, int]] = field(default_factory=set)
    went_back: tuple[int, int] = (-2, 0)

    def state_dict(self) -> dict[str, Any]:
        """Return counts and places, as plain data."""
        places = [list(place) for place in sorted(self.places)]
        return {"steps": self.steps, "places": places, "went_back": list(self.went_back)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave."""
        self.steps = state["steps"]
        self.places = {(epoch, samples) for epoch, samples in state["places"]}
        step, row = state["went_back"]
        self.went_back = (step, row)


@dataclass
class Run:
    """The parts of a run, each with its own state, and where the run stands among its batches.

    `read` gives the batches, and `reader` is what has a state of that: it comes into checkpoints with the rest.

    `stretch` is how the epoch at hand is cut into batches.

    `metrics` see the batches of training, where that was asked for; they are read at each log.

    `epoch_over` says that the steps of the epoch are done and only its end is left. `random_before_epoch` is what the
    random generators were before the loader of the epoch began: it may draw then, for its workers or its order.

    Before each step it is noted where torch's `generators` stand, which every step may move. Those of python and NumPy
    cost more to read: `host_random` is where they stood at the first step of the epoch.

    A resumed run puts the generators back twice. `before_reading` is called once, before the first loader begins, and
    `after_fetch` once, when the first group has been fetched, or none was left.

    `rewound` says that the run went back to a checkpoint: what is left of the epoch at hand begins anew.

    `end_left` says that the end of the epoch at hand is left for a resumed run, also where every step is done, and
    `ended` that no step is. `interrupted` stands in a checkpoint that was written because of a signal: which one, and
    what was still to be done before the next step.

    `cutting` is what the loader knows of its batches.

    Among several ranks `evenly_shared` says that all have equally many batches before the last step of an epoch, so
    that they need not ask each other.
    """

    trainer: Steps
    plan: Plan
    engine: StepRunner
    events: Events
    tally: Tally
    position: DataPosition
    read: Reader
    reader: Stateful | None = None
    meters: list[Meter] = field(default_factory=list)
    metrics: StreamingMetrics | None = None
    before_reading: Callable[[], Any] | None = None
    after_fetch: Callable[[], Any] | None = None
    evenly_shared: bool = True
    rewound: bool = False
    ended: bool = False
    end_left: bool = False
    interrupted: dict[str, Any] | None = None
    left_out: LeftOut = field(default_factory=LeftOut)
    cutting: Cutting | None = None
    stretch: Stretch = field(init=False)
    grouping: Grouping = field(init=False)
    epoch_over: bool = False
    random_before_epoch: dict[str, Any] | None = None
    generators: list[Generator] = field(default_factory=list)
    random_before_step: list[Tensor] | None = None
    host_random: tuple[object, ...] | None = None

    def __post_init__(self) -> None:
        plan, known = self.plan, None if self.cutting is None else self.cutting.samples_per_batch
        self.stretch = Stretch(plan.batches_per_epoch)
        named = plan.total_batch_size // plan.accumulation
        self.grouping = Grouping(known or named, plan.accumulation, self.engine.ranks)

    def epochs(self) -> Iterator[int]:
        """Yield the epochs that are left, from the one of the position on."""
        while self.position.epoch < self.plan.epochs and (self.end_left or not self.finished):
            self.rewound = self.end_left = False
            yield self.position.epoch
            if not (self.rewound or self.trainer.control.should_training_stop):
                self._next_epoch()

    @property
    def finished(self) -> bool:
        """Whether every step of the plan is done."""
        return self.ended or self.trainer.state.global_step >= self.plan.max_steps

    @property
    def place(self) -> int:
        """The number of the place between two steps: there is one after each step and one after an epoch's end."""
        return 2 * self.trainer.state.global_step + self.epoch_over

    def groups(self) -> Iterator[Group]:
        """Return the groups of micro-batches that are left of this epoch, one for each step, as they are asked for.

        The last group may be smaller, also when a stream ends in the middle of one. An epoch without a single batch
        ends the run, with a warning.
        """
        if self.before_reading is not None:
            self.before_reading()
            self.before_reading = None
        if self.epoch_over:
            if self.finished:
                # Whoever asked for that did so before the run was saved.
                self.trainer.control.should_training_stop = True
            self.engine.settle()
            return iter(())
        self.random_before_epoch = capture_random_state()
        return self._read()

    def _read(self) -> Iterator[Group]:
        stretch, accumulation, batches = self.stretch, self.plan.accumulation, self.read(self.position)
        self.host_random = None
        while stretch.done < stretch.batches:
            self.random_before_step = list(map(Generator.get_state, self.generators))
            size = min(accumulation, stretch.batches - stretch.done)
            fetched, items = self.trainer.get_batch_samples(batches, size, self.engine.device)
            rounds, shares = len(fetched), None
            if self.engine.ranks > 1:
                shares = self._shares(rounds, last=stretch.done + size == stretch.batches)
                rounds = max(shares)
            if self.after_fetch is not None:
                self.after_fetch()
                self.after_fetch = None
                self.random_before_step = list(map(Generator.get_state, self.generators))
            if self.host_random is None:
                self.host_random = host_random()
            if rounds == 0:
                break
            if (self.position.epoch, self.position.samples) in self.left_out.places:
                yield Group([], None, rounds, left_out=True)
            else:
                yield Group(fetched, items, rounds, shares)
            control = self.trainer.control
            if self.rewound or self.finished or control.should_epoch_stop or control.should_training_stop:
                break
        if self.position.samples == 0 and not (self.rewound or self.leaving_epoch):
            self._stop_for_lack_of_data()
        self.engine.settle()
        if not self.rewound:
            self.epoch_over = True

    def _shares(self, batches: int, *, last: bool) -> tuple[int, ...]:
        """Return how many micro-batches each rank has for a step; they ask each other where that is not certain."""
        if self.evenly_shared and not last:
            return (batches,) * self.engine.ranks
        return self.engine.shares(batches)

    def _next_epoch(self) -> None:
        self.position.next_epoch()
        self.stretch = Stretch(self.plan.batches_per_epoch)
        self.epoch_over = False

    def count(self, group: Group) -> None:
        """Count the step that `group` made, and its samples."""
        state = self.trainer.state
        self.stretch.done += group.rounds
        self.position.advance(group.rounds * self.grouping.samples)
        self.tally.steps += 1
        self.tally.counted.copy_(self.tally.loss)
        if group.left_out:
            self.count_left_out()
        state.global_step += 1
        state.epoch = self.position.epoch + self.stretch.reached
        for meter in self.meters:
            for batch in group.batches:
                meter(batch)

    def count_left_out(self) -> None:
        """Count a step as left out; it is, or will be, counted as a step besides."""
        self.tally.left_out += 1
        self.left_out.steps += 1

    @property
    def leaving_epoch(self) -> bool:
        """Whether somebody asked to leave the epoch, or the run."""
        control = self.trainer.control
        return control.should_epoch_stop or control.should_training_stop

    def _stop_for_lack_of_data(self) -> None:
        logger.warning(
            "The training data gave not a single batch in epoch %d, so training stops at step %d of %d. A stream that "
            "ended for good does this; give one that can be read again, or set max_steps to what it holds.",
            self.position.epoch,
            self.trainer.state.global_step,
            self.plan.max_steps,
        )
        self.trainer.control.should_training_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Return the progress: position, batches, open sums, and the generators from before the epoch."""
        return {
            "position": self.position.state_dict(),
            "stretch": self.stretch.state_dict(),
            "epoch_over": self.epoch_over,
            "grouping": asdict(self.grouping),
            "more": [self.plan.more_steps, self.plan.more_epochs],
            "window": None if self.cutting is None else self.cutting.window(self.position.epoch),
            "tally": self.tally.state_dict(),
            "left_out": self.left_out.state_dict(),
            "interrupted": self.interrupted,
            "not_finite_in_a_row": self.engine.watch.in_a_row,
            "random_before_epoch": self.random_before_epoch,
            "reader": None if self.reader is None else self.reader.state_dict(),
            "metrics": None if self.metrics is None else self.metrics.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the progress back."""
        self.position.load_state_dict(state["position"])
        self.stretch = Stretch.of(state["stretch"])
        self.epoch_over = state["epoch_over"]
        self.plan = self.plan.lengthened(*state["more"])
        if self.cutting is not None:
            self.cutting.keep_window(self.position.epoch, state["window"])
        self.tally.load_state_dict(state["tally"])
        self.left_out.load_state_dict(state["left_out"])
        self.engine.watch.in_a_row = state["not_finite_in_a_row"]
        self.interrupted = state["interrupted"]
        self.random_before_epoch = state["random_before_epoch"]
        if self.reader is not None and state.get("reader") is not None:
            self.reader.load_state_dict(state["reader"])
        if self.metrics is not None and state.get("metrics") is not None:
            self.metrics.load_state_dict(state["metrics"], self.engine.device)

    @property
    def within_epoch(self) -> bool:
        """Whether steps of the epoch at hand are done, and others are left."""
        return self.position.samples > 0 and not self.epoch_over

    def settle(self) -> None:
        """Decide, on resume, what is left of the epoch of the position: steps, only its end, or nothing.

        A state taken at the end of an epoch leaves nothing of it, unless the end was that of a run stopped midway: then
        the epoch's other samples are still to come. One taken after the last step leaves the end.
        """
        # How far a stream goes nobody knows.
        control, complete = self.trainer.control, self.stretch.complete and not self.plan.streaming
        self.end_left = not self.epoch_over
        if self.epoch_over and (complete or not control.should_training_stop):
            self._next_epoch()
        else:
            self.epoch_over = complete or control.should_epoch_stop

    def stop_here(self) -> None:
        """Make no step more in a resumed run: of the epoch at hand its end is left, unless that was served before."""
        self.ended = True
        if not self.end_left:
            return
        self.epoch_over = True
        if self.after_fetch is not None:
            # Nothing will be fetched.
            self.before_reading, self.after_fetch = self.after_fetch, None

    def go_on(self, *, at_end: bool) -> None:
        """Decide what is left of a resumed run once all is done that was still to be done at its step.

        `at_end` says that this was due at the end of an epoch.
        """
        if at_end:
            self.ended = self.trainer.control.should_training_stop
        elif self.finished or self.leaving_epoch:
            self.epoch_over = self.end_left = True
