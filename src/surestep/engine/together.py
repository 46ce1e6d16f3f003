"""An engine whose ranks fail together: for steps of which nobody knows yet whether they can be made.

In a backward that exchanges gradients as they come, a rank that fails leaves the others waiting. Here each rank runs
forward and backward for itself, all ask each other whether that went well, and gradients are exchanged then: nothing
overlaps, and what one rank raises, all do. An error elsewhere in a step (in a callback, say) is not told.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from surestep.engine.engine import Clipper, Engine, Weigher
from surestep.runtime.together import failing_together, tell_failure

if TYPE_CHECKING:
    from surestep.engine.division import Weights


class CarefulEngine(Engine):
    """Runs the steps of an `Engine` so that its ranks fail together."""

    by_hand = True
    # What has failed in a step, here or elsewhere, and is known to every rank.
    known_failure: Exception | None = None
    # Of the step at hand, whether the ranks have asked each other.
    _asked = False

    @classmethod
    def of(cls, engine: Engine) -> CarefulEngine:
        """Return an engine that has the parts of another, and a state of its own from here on."""
        careful = cls.__new__(cls)
        vars(careful).update(vars(engine))
        return careful

    def forward_backward(self, trainer: Any, group: Any, tally: Any, events: Any) -> bool:
        """Run a group; what fails before the ranks have asked each other is told."""
        self._asked = False
        # As the first forward of a step does in torch's wrapper.
        self.strategy.level(self.model)
        try:
            return super().forward_backward(trainer, group, tally, events)
        except Exception as error:
            if not self._asked:
                self.known_failure = error
                tell_failure(self.strategy, error)
            raise

    def drive(
        self, optimizer: Optimizer, scheduler: Any, clip: Clipper, *, steps_schedule: bool, weigh: Weigher | None = None
    ) -> None:
        """Take what updates the model, and what weighs its batches."""
        careful = None if weigh is None else partial(self._weighed, weigh)
        super().drive(optimizer, scheduler, clip, steps_schedule=steps_schedule, weigh=careful)

    def _weighed(self, weigh: Weigher, batches: list[Any]) -> Weights:
        with self._known_to_all():
            weights = weigh(batches)
        self._asked = False
        return weights

    def _exchange(self, tally: Any) -> None:
        with self._known_to_all():
            pass
        lacking = self._dividing().settle(self._parameters)
        if lacking is not None:
            tally.add(lacking)
        self.strategy.exchange(self._parameters)

    def apply(self, tally: Any, events: Any) -> bool:
        """Clip, step and zero; what fails on one rank, fails on all."""
        with self._known_to_all():
            return super().apply(tally, events)

    @contextmanager
    def _known_to_all(self) -> Iterator[None]:
        self._asked = True
        try:
            with failing_together(self.strategy):
                yield
        except Exception as error:
            self.known_failure = error
            raise
