"""An engine whose ranks fail together: for steps of which nobody knows yet whether they can be made.

In a backward that exchanges gradients as they come, a rank that fails leaves the others waiting. Here each rank runs
forward and backward for itself, all ask each other whether that went well, and gradients are exchanged then: nothing
overlaps, and what one rank raises, all do. An error elsewhere in a step (in a callback, say) is not told.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from surestep.engine.division import Pairs
from surestep.engine.engine import Engine
from surestep.runtime.together import ask_for_failures, failing_together, tell_failure


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

    def backward_pairs(self, pairs: Pairs, micro_batches: float) -> Tensor:
        """Run backward from sums; their weights are exchanged once the ranks have asked each other."""
        return self._dividing().backward(
            self._parameters, pairs, micro_batches=micro_batches, last=False, uneven=self._uneven
        )

    def _exchange(self, tally: Any) -> None:
        self._asked = True
        try:
            ask_for_failures(self.strategy)
        except Exception as error:
            self.known_failure = error
            raise
        lacking = self._dividing().settle(self._parameters)
        if lacking is not None:
            tally.add(lacking)
        self.strategy.exchange(self._parameters)

    def apply(self, tally: Any, events: Any) -> bool:
        """Clip, step and zero; what fails on one rank, fails on all."""
        try:
            with failing_together(self.strategy):
                return super().apply(tally, events)
        except Exception as error:
            self.known_failure = error
            raise
