"""What follows a step whose loss or gradients are not finite (`nonfinite`)."""

from __future__ import annotations

import math
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from surestep.engine.engine import Verdict, Watch
from surestep.engine.nonfinite import Before, EveryStep, Failure, OneStepLate
from surestep.logs import announce, get_logger
from surestep.optim.clipping import no_gradients
from surestep.runtime.collectives import on_main
from surestep.trainer.moment import Moment

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer
    from surestep.training.run import Run

logger = get_logger(__name__)

# So many failures with no progress between them are no accident.
LIMIT = 10
# Overflows in a row that tell of more than a scale that is finding its size: it is then a millionth of what it was.
_OVERFLOWS = 20
_IN_BACKWARD = (
    "This optimizer updates the weights during backward, when nobody can know yet whether gradients are finite: %s is "
    "looked at (nonfinite=%r)."
)
_NOT_FUSED = (
    "%s cannot leave a step out on the device, so nonfinite=%r reads the loss and the norm of the gradients at every "
    'step, for which the host waits. optim="adamw_torch_fused" leaves it out on the device.'
)
_EVERY_STEP = (
    "{setting} reads {what} at every step, for which the host waits for the device ({device}). Only on CUDA can it be "
    "read later."
)
_IN_BACKWARD_WAITS = (
    "nonfinite={policy!r} reads the loss of each micro-batch before its backward, for which the host waits for the "
    "device ({device})."
)


def make_watch(trainer: Trainer, run: Run, loader: Any, checkpoint: str | None) -> Watch:
    """Return what looks at each step, as `nonfinite` says; `checkpoint` is what the run goes on from."""
    engine, policy = trainer.engine, trainer.args.nonfinite
    device, tells = engine.device, engine.ranks > 1
    fused = getattr(trainer.optimizer, "_step_supports_amp_scaling", False)
    if engine.precision.scaler is not None:
        overflows, nothing = Overflows(trainer), Before(nn.Module(), device)
        if _runs_ahead(device):
            return OneStepLate(nothing, overflows, None, device, late=fused)
        _say_if_it_waits(device, _EVERY_STEP, setting="fp16=True", what="whether the gradients overflowed")
        return EveryStep(nothing, overflows)
    if policy == "ignore":
        return Watch()
    in_backward = engine.clip is no_gradients
    if in_backward:
        logger.warning(_IN_BACKWARD, "no step" if tells else "only the loss of each step", policy)
        if tells:
            return Watch()
    before = Before(engine.unwrap(engine.model), device, [] if run.metrics is None else [run.metrics])
    answers = Answers(trainer, run, loader, before, checkpoint)
    if _runs_ahead(device) and not in_backward:
        if fused:
            return OneStepLate(before, answers, trainer.optimizer, device, tells=tells)
        logger.warning(_NOT_FUSED, type(trainer.optimizer).__name__, policy)
    elif in_backward:
        _say_if_it_waits(device, _IN_BACKWARD_WAITS, policy=policy)
    else:
        what = "the loss and the norm of the gradients"
        _say_if_it_waits(device, _EVERY_STEP, setting=f"nonfinite={policy!r}", what=what)
    return EveryStep(before, answers, tells=tells, in_backward=in_backward)


def _runs_ahead(device: torch.device) -> bool:
    """Say whether the host may run ahead of the device, and read a number once it has arrived by itself."""
    return device.type == "cuda"


def _waits(device: torch.device) -> bool:
    """Say whether reading a number makes the host wait for the device."""
    return device.type != "cpu"


def _say_if_it_waits(device: torch.device, form: str, **words: str) -> None:
    if _waits(device):
        announce(logger, form.format(device=device.type, **words))


_NOTHING_SAVED = (
    'nonfinite="rewind" has no checkpoint of this run to go back to. Save earlier (save_steps), or write '
    'nonfinite="skip".'
)


class Overflows:
    """Leaves a step to the loss scale, and says once when there are too many in a row."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._said = False

    def __call__(self, failure: Failure) -> Verdict:
        """Count; the scale does the rest. A loss that is not finite, with gradients that are, is no overflow."""
        scaler = self._trainer.engine.precision.scaler
        if failure.in_a_row >= _OVERFLOWS and not self._said and scaler is not None:
            self._said = True
            logger.warning(
                "%d steps in a row have overflowed in float16, and none of them updated the model: the loss scale is "
                "down to %g at step %d. Write bf16=True instead of fp16=True, or lower learning_rate; where weights or "
                "samples hold NaN, a run without fp16 says which.",
                failure.in_a_row,
                scaler.get_scale(),
                self._trainer.state.global_step,
            )
        finite = failure.norm is None or math.isfinite(failure.norm)
        return Verdict.MADE if finite else Verdict.OVERFLOWED

    def moment(self) -> None:
        """Return nothing: the step stands."""

    def undo_where(self, bad: Tensor) -> None:
        """Undo nothing: the step stands."""


class Answers:
    """Stops, leaves the step out, or goes back to a checkpoint."""

    def __init__(self, trainer: Trainer, run: Run, loader: Any, before: Before, checkpoint: str | None) -> None:
        self._trainer = trainer
        self._run = run
        self._loader = loader
        self._before = before
        self._began_with = checkpoint
        self._answer = {"stop": self._stop, "skip": self._skip, "rewind": self._rewind}[trainer.args.nonfinite]

    def __call__(self, failure: Failure) -> Verdict:
        """Do what the arguments say."""
        return self._answer(failure)

    def moment(self) -> Moment:
        """Return what counting a step will change."""
        return Moment.of(self._trainer, self._run)

    def undo_where(self, bad: Tensor) -> None:
        """Take losses, buffers and metrics back on the device."""
        self._run.tally.drop_open_where(bad.bool())
        self._before.put_back_where(bad.bool())

    def _stop(self, failure: Failure, why: str = "") -> Verdict:
        """Raise, with everything as it was before the step."""
        from surestep.trainer.nonfinite_report import Report

        engine, run = self._trainer.engine, self._run
        engine.zero_grad()
        moment = failure.moment or self.moment()
        error = Report(self._trainer, self._loader, self._before).error(failure, moment, why)
        moment.put_back(self._trainer, run)
        self._before.put_back()
        self._before.put_generators_back()
        run.tally.drop_open()
        raise error

    def _skip(self, failure: Failure) -> Verdict:
        """Leave the step out, unless that does not help."""
        if failure.in_a_row > LIMIT:
            return self._stop(failure)
        run = self._run
        if failure.moment is None:
            self._before.put_back()
            run.tally.drop_open()
        run.count_left_out()
        self._tell(failure, "it is left out")
        return Verdict.LEFT_OUT

    def _rewind(self, failure: Failure) -> Verdict:
        """Go back to the last checkpoint, from where the step is left out when it comes again."""
        from surestep.trainer.resuming.rewinding import go_back

        trainer, run = self._trainer, self._run
        trainer._finish_saves()
        folder = on_main(trainer._world, self._last_good)
        if folder is None:
            return self._stop(failure, _NOTHING_SAVED)
        moment = failure.moment or self.moment()
        step, row = run.left_out.went_back
        # With a step made between two failures there is progress.
        row = row + 1 if moment.step <= step + 1 else 1
        if row > LIMIT:
            return self._stop(failure, f"The run has gone back {LIMIT} times for steps that follow each other.")
        self._tell(failure, f"training goes back to {folder.name}, and leaves it out")
        places = run.left_out.places | {(moment.epoch, moment.samples)}
        go_back(trainer, run, str(folder))
        run.left_out.places |= places
        run.left_out.went_back = (moment.step, row)
        run.rewound = True
        return Verdict.REWOUND

    def _last_good(self) -> Path | None:
        """Return the newest checkpoint of this run, or the one that it began with, if it is whole."""
        store = self._trainer._store
        folder = store.newest or (None if self._began_with is None else Path(self._began_with))
        return None if folder is None or store.verify(folder) else folder

    def _tell(self, failure: Failure, what: str) -> None:
        from surestep.trainer.nonfinite_report import Report, listed, seen

        moment = failure.moment or self.moment()
        samples = Report(self._trainer, self._loader, self._before).samples(failure, moment)
        where = "" if samples is None else f" Samples of the step: {listed(list(chain.from_iterable(samples)))}."
        place = f"Step {moment.step + 1} (epoch {moment.progress:.2f})"
        logger.warning("%s is not finite, %s: %s.%s", place, what, seen(failure), where)
