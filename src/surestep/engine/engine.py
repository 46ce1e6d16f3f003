"""The engine: a model, its optimizer and schedule, run by a strategy in a precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from surestep.engine.precision import Precision
from surestep.engine.strategies.base import Strategy
from surestep.errors import ArgumentError

if TYPE_CHECKING:
    from surestep.engine.division import Division, Pairs, Weights

# Brings gradients into bounds and returns their norm before that, or None where no norm was taken.
Clipper = Callable[[list[nn.Parameter]], Tensor | None]
# Tells what the losses of some micro-batches will weigh together.
Weigher = Callable[[list[Any]], "Weights"]


class _Fires(Protocol):
    def fire(self, event: str, **extra: Any) -> None: ...


class _Adds(Protocol):
    grad_norm: Tensor | float | None
    learning_rate: Tensor | float | None

    def add(self, loss: Tensor) -> None: ...

    def add_parts(self, parts: Mapping[str, Tensor]) -> None: ...


class Verdict(Enum):
    """What becomes of a step."""

    MADE = "made"
    LEFT_OUT = "left out"
    REWOUND = "rewound"
    # The loss scale has left it out, and has yet to learn of it.
    OVERFLOWED = "overflowed"


class Watch:
    """Says whether a step is fit to be made, before its update. This one looks at nothing; `engine.nonfinite` does."""

    # Whether a loss tells of itself through its gradient.
    tells = False
    # Whether weights change during backward.
    in_backward = False
    # Whether what becomes of a step is known only once `settle` is called.
    late = False
    # How many steps were not fit, one after the other up to the last; checkpoints hold it.
    in_a_row = 0

    @property
    def keeps(self) -> bool:
        """Whether what forward moves (buffers of the model, metrics of training) can be put back."""
        return False

    def put_back(self) -> None:
        """Make what forward has moved what it was before the open group, where that is kept."""

    def begin(self, group: Any) -> list[Tensor]:
        """Begin a group; return the list that takes the losses of its micro-batches."""
        del group
        return []

    def spares(self, loss: Tensor) -> bool:
        """Say whether backward must not be run from a loss."""
        del loss
        return False

    def look(self, norm: Tensor | None) -> Verdict:
        """Return what becomes of the group, whose gradients have this norm."""
        del norm
        return Verdict.MADE

    def settle(self) -> Verdict:
        """Return what has become of the last group."""
        return Verdict.MADE


class Engine:
    """Runs steps: forward and backward over a group of micro-batches, then clipping, optimizer and schedule.

    `model` is the prepared model, the one to call. The list of its parameters is taken once, so that clipping and
    zeroing walk no module tree; call `refresh` after replacing parameters. With `by_hand` gradients are exchanged after
    the backward of a step, and not in it.
    """

    by_hand = False

    def __init__(self, strategy: Strategy, precision: Precision) -> None:
        if precision.name not in strategy.precisions:
            raise ArgumentError(
                f"{type(strategy).__name__} does not run in {precision.name}; it takes "
                f"{', '.join(sorted(strategy.precisions))}."
            )
        self.strategy = strategy
        self.precision = precision
        self.device = strategy.device
        self.ranks = strategy.world.size
        self.model: nn.Module
        self.optimizer: Optimizer | None = None
        self.scheduler: Any = None
        self.steps_schedule = True
        self.clip: Clipper | None = None
        self.weigh: Weigher | None = None
        self.watch = Watch()
        # The schedule of a step waits until the watch knows of it.
        self._unsettled = False
        self._passes_over = False
        # What `trainer.accelerator` tells: whether the micro-batch at hand ends its step, and whether that one counted.
        self.on_last_of_step = True
        self.stepped = True
        # Of the ranks, where there are several: what a mean over a micro-batch is divided by.
        self.mean_micro_batches: float | None = None
        # Whether some rank has no micro-batch in the step at hand.
        self._uneven = False
        # Made for a run in which a loss comes with its weight.
        self._division: Division | None = None
        self._parameters: list[nn.Parameter] = []

    def prepare(self, model: nn.Module, finish: Callable[[nn.Module], nn.Module] | None = None) -> nn.Module:
        """Take `model`, place it as the strategy says, and return the model to call; `finish` compiles it, say."""
        placed = self.strategy.prepare(model)
        self.model = placed if finish is None else finish(placed)
        self.refresh()
        return self.model

    def refresh(self) -> None:
        """Take the list of parameters anew."""
        self._parameters = list(self.model.parameters())

    def drive(
        self, optimizer: Optimizer, scheduler: Any, clip: Clipper, *, steps_schedule: bool, weigh: Weigher | None = None
    ) -> None:
        """Take what updates the model. A schedule that waits for a metric is not stepped here.

        `weigh` tells what the losses of the micro-batches of a step will weigh, where that is known before them.
        """
        self.optimizer, self.scheduler, self.clip = optimizer, scheduler, clip
        self.steps_schedule, self.weigh = steps_schedule, weigh
        self._division = None

    @contextmanager
    def computing(self, model: nn.Module) -> Iterator[None]:
        """Make `model` compute in the engine's precision inside the block."""
        with self.precision.applied(model):
            yield

    def forward_backward(self, trainer: Any, group: Any, tally: _Adds, events: _Fires) -> bool:
        """Run `trainer.training_step` on every micro-batch of a group; gradients are exchanged on the last.

        In a step in which some rank has no micro-batch, gradients are exchanged after the others' last one.

        Returns False where a callback asked, between micro-batches, to leave: the step is then broken off, nothing of
        it is applied and its gradients are dropped.
        """
        batches, items, _, shares, self._passes_over = group
        losses = self.watch.begin(group)
        trainer.current_gradient_accumulation_steps = last = len(batches)
        model, exchanges = self.model, self.ranks > 1
        self.mean_micro_batches, self._uneven = None, False
        if shares is not None:
            self.mean_micro_batches, self._uneven = sum(shares) / len(shares), self.by_hand or 0 in shares
            model = self.strategy.alone(model) if self._uneven else model
        if self.weigh is not None and not self._passes_over:
            self._dividing().begin_step(self.weigh(batches), uneven=self._uneven)
        elif self._division is not None:
            self._division.begin_step()
        for number, inputs in enumerate(batches, start=1):
            self.on_last_of_step = ends = number == last
            if ends or not exchanges:
                loss = trainer.training_step(model, inputs, items)
            else:
                with self.strategy.accumulating(model):
                    loss = trainer.training_step(model, inputs, items)
            losses.append(loss)
            tally.add(loss)
            if not ends:
                events.fire("on_substep_end")
                control = trainer.control
                if control.should_epoch_stop or control.should_training_stop:
                    self.on_last_of_step = True
                    self.zero_grad()
                    return False
        if self._uneven:
            self._exchange(tally)
        if self._division is not None:
            tally.add_parts(self._division.parts)
        return True

    def _exchange(self, tally: _Adds) -> None:
        """Exchange the gradients of a step in which the ranks did not do so during backward."""
        del tally
        self._dividing().join()
        self.strategy.exchange(self._parameters)

    def shares(self, batches: int) -> tuple[int, ...]:
        """Return how many micro-batches each rank has for a step, when this one has so many."""
        return tuple(self.strategy.agree(batches))

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Run backward from a loss, scaled where the precision asks for it."""
        watch = self.watch
        if watch.in_backward and watch.spares(loss):
            return
        self.precision.backward(telling(loss) if watch.tells else loss, **kwargs)

    def backward_pairs(self, pairs: Pairs, micro_batches: float) -> Tensor:
        """Run backward from sums that are divided by their weights over the whole step; return the share of the loss.

        `micro_batches` is how many there are to a step.
        """
        last = self.on_last_of_step
        return self._dividing().backward(
            self._parameters, pairs, micro_batches=micro_batches, last=last, uneven=self._uneven
        )

    def _dividing(self) -> Division:
        """Return the division of the run, made when it is first needed."""
        if self._division is None:
            from surestep.engine.division import Division

            self._division = Division(self.strategy, self.backward, settles=self.by_hand)
        return self._division

    def apply(self, tally: _Adds, events: _Fires) -> bool:
        """Clip, step the optimizer, step the schedule unless the optimizer's step was skipped, zero the gradients.

        The learning rate that is noted is the one of this step: read after the optimizer and before the schedule. A
        step that is not finite is answered before the optimizer's, or before that of the next step, where the watch
        knows it late; False where the run went back because of it. A group that is left out only fires its events.
        """
        optimizer = self.optimizer
        assert optimizer is not None
        assert self.clip is not None
        if self._unsettled and not self.settle():
            return False
        if self._passes_over:
            self.stepped, tally.grad_norm = False, None
            tally.learning_rate = optimizer.param_groups[0]["lr"]
            events.fire("on_pre_optimizer_step")
            events.fire("on_optimizer_step")
            return True
        if self.precision.scaler is not None:
            self.precision.unscale(optimizer)
        tally.grad_norm = norm = self.clip(self._parameters)
        verdict = self.watch.look(norm)
        if verdict is Verdict.REWOUND:
            self.zero_grad()
            return False
        events.fire("on_pre_optimizer_step")
        stepped = verdict is not Verdict.LEFT_OUT and self.precision.step(optimizer)
        # An optimizer that is told of the scale's overflow on the device steps in name alone.
        self.stepped = stepped and verdict is Verdict.MADE
        events.fire("on_optimizer_step")
        tally.learning_rate = optimizer.param_groups[0]["lr"]
        if self.watch.late:
            self._unsettled = True
        elif self.stepped and self.steps_schedule:
            self.scheduler.step()
        self.zero_grad()
        return True

    def settle(self) -> bool:
        """Learn what became of the last step, where that is known late; False if the run went back because of it.

        Called before anything is logged, evaluated or saved, and at the end of an epoch.
        """
        if not self._unsettled:
            return True
        self._unsettled = False
        verdict = self.watch.settle()
        if verdict is Verdict.MADE and self.stepped and self.steps_schedule:
            self.scheduler.step()
        if verdict is Verdict.REWOUND:
            self.zero_grad()
        return verdict is not Verdict.REWOUND

    def zero_grad(self) -> None:
        """Drop every gradient of the model, of parameters that no optimizer knows as well."""
        for parameter in self._parameters:
            parameter.grad = None

    def evaluated(self) -> nn.Module:
        """Return the model to call in an evaluation, the same on every rank: it exchanges nothing."""
        self.strategy.level(self.model)
        return self.strategy.alone(self.model)

    def unwrap(self, model: nn.Module) -> nn.Module:
        """Return the user's model from inside a prepared one."""
        return self.strategy.unwrap(model)


def telling(loss: Tensor) -> Tensor:
    """Return a loss with the same gradient, to the last bit, where it is finite; elsewhere with a gradient of NaN."""
    return loss * (1 + 0 * loss.detach())
