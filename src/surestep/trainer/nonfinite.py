"""What follows a step whose loss or gradients are not finite (`nonfinite`), and what the error says of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from torch import nn

from surestep.engine.engine import Verdict, Watch
from surestep.engine.nonfinite import Before, EveryStep, Failure
from surestep.errors import NonFiniteError
from surestep.logs import get_logger
from surestep.optim.clipping import no_gradients
from surestep.runtime.collectives import gather_objects

if TYPE_CHECKING:
    from surestep.engine.culprit import Culprit
    from surestep.trainer.trainer import Trainer
    from surestep.training.run import Run

logger = get_logger(__name__)

# So many failures with no progress between them are no accident.
LIMIT = 10
# Overflows in a row that tell of more than a scale that is finding its size: it is then a millionth of what it was.
_OVERFLOWS = 20
_SHOWN = 8
_IN_BACKWARD = (
    "This optimizer updates the weights during backward, when nobody can know yet whether gradients are finite: %s is "
    "looked at (nonfinite=%r)."
)


def make_watch(trainer: Trainer, run: Run, loader: Any) -> Watch:
    """Return what looks at each step, as `nonfinite` says."""
    engine, policy = trainer.engine, trainer.args.nonfinite
    if engine.precision.scaler is not None:
        return EveryStep(Before(nn.Module(), engine.device), Overflows(trainer))
    if policy == "ignore":
        return Watch()
    in_backward = engine.clip is no_gradients
    if in_backward:
        logger.warning(_IN_BACKWARD, "no step" if engine.ranks > 1 else "only the loss of each step", policy)
        if engine.ranks > 1:
            return Watch()
    before = Before(engine.unwrap(engine.model), engine.device)
    return EveryStep(before, Answers(trainer, run, loader, before), tells=engine.ranks > 1, in_backward=in_backward)


class Overflows:
    """Leaves a step to the loss scale, and says once when there are too many in a row."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._said = False

    def __call__(self, failure: Failure) -> Verdict:
        """Count; the scale does the rest."""
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
        return Verdict.MADE


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rank knows of a failure."""

    micro_batch: int | None = None
    micro_batches: int = 0
    loss: float | None = None
    samples: list[int] | None = None
    names: tuple[str, list[Any]] | None = None
    culprit: Culprit | None = None
    trouble: str | None = None

    @property
    def knows(self) -> bool:
        """Whether the cause is on this rank, as far as that was found."""
        return self.micro_batch is not None


class Answers:
    """Stops, or leaves the step out."""

    def __init__(self, trainer: Trainer, run: Run, loader: Any, before: Before) -> None:
        self._trainer = trainer
        self._run = run
        self._loader = loader
        self._before = before
        self._answer = {"stop": self._stop, "skip": self._skip}[trainer.args.nonfinite]

    def __call__(self, failure: Failure) -> Verdict:
        """Do what the arguments say."""
        return self._answer(failure)

    def _stop(self, failure: Failure) -> Verdict:
        """Raise, with everything as it was before the step."""
        engine, run = self._trainer.engine, self._run
        engine.zero_grad()
        finding = self._find(failure)
        self._before.put_buffers_back()
        self._before.put_generators_back()
        run.tally.drop_open()
        findings = gather_objects(finding) if engine.ranks > 1 else [finding]
        blamed = next((one for one in findings if one.knows), finding)
        state = self._trainer.state
        raise NonFiniteError(
            "\n".join(self._lines(failure, findings)),
            step=state.global_step + 1,
            epoch=self._epoch,
            micro_batch=blamed.micro_batch,
            samples=blamed.samples,
            module=None if blamed.culprit is None else blamed.culprit.module,
        )

    def _skip(self, failure: Failure) -> Verdict:
        """Leave the step out, unless that does not help."""
        if failure.in_a_row > LIMIT:
            return self._stop(failure)
        self._before.put_buffers_back()
        self._run.tally.leave_out()
        self._run.left_out.steps += 1
        samples = self._samples(failure)
        where = "" if samples is None else f" Samples of the step: {_listed(list(chain.from_iterable(samples)))}."
        logger.warning("Step %d (epoch %.2f) is left out: %s.%s", self._step, self._epoch, _seen(failure), where)
        return Verdict.LEFT_OUT

    @property
    def _step(self) -> int:
        return self._trainer.state.global_step + 1

    @property
    def _epoch(self) -> float:
        run = self._run
        return run.position.epoch + run.batches_done / run.plan.batches_per_epoch

    def _samples(self, failure: Failure) -> list[list[int]] | None:
        """Return the numbers of the samples of each micro-batch, where the sampler tells them."""
        from surestep.data.numbers import sample_numbers

        run = self._run
        return sample_numbers(self._loader, run.position.epoch, run.batches_done, len(failure.group.batches))

    def _find(self, failure: Failure) -> Finding:
        """Look for the micro-batch and the module; nothing that goes wrong on the way may hide the failure."""
        from surestep.data.numbers import named_samples

        batches = failure.group.batches
        number = next((place for place, loss in enumerate(failure.losses) if not math.isfinite(loss)), None)
        culprit, trouble = None, None
        try:
            found = self._search(failure)
            number, culprit = (number, None) if found is None else found
        except Exception as error:
            trouble = f"{type(error).__name__}: {error}"
        if number is None:
            return Finding(micro_batches=len(batches), trouble=trouble)
        samples = self._samples(failure)
        return Finding(
            micro_batch=number + 1,
            micro_batches=len(batches),
            loss=failure.losses[number],
            samples=None if samples is None or number >= len(samples) else samples[number],
            names=named_samples(batches[number]),
            culprit=culprit,
            trouble=trouble,
        )

    def _search(self, failure: Failure) -> tuple[int, Culprit] | None:
        """Run the micro-batches again, with what the generators drew then."""
        from surestep.engine.culprit import find_culprit

        trainer, group = self._trainer, failure.group
        model = trainer.engine.unwrap(trainer.engine.model)
        if trainer.engine.ranks > 1 and any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
            return None
        self._before.put_buffers_back()
        self._before.put_generators_back()
        for number, inputs in enumerate(group.batches):
            batch = trainer._prepare_inputs(inputs)
            compute = partial(trainer.compute_loss, model, batch, num_items_in_batch=group.items)
            with trainer.compute_loss_context_manager():
                culprit = find_culprit(model, compute)
            if culprit is not None:
                return number, culprit
        return None

    def _lines(self, failure: Failure, findings: list[Finding]) -> Iterator[str]:
        state = self._trainer.state
        row = f", the last of {failure.in_a_row} in a row" if failure.in_a_row > 1 else ""
        yield (
            f"Step {self._step} (epoch {self._epoch:.2f}){row}: {_seen(failure)}. No update was made: weights, "
            f"optimizer and schedule are those after step {state.global_step}, and can be saved."
        )
        for rank, finding in enumerate(findings):
            who = f"rank {rank}, " if len(findings) > 1 else ""
            if finding.knows:
                yield from (f"  {who}{line}" for line in _described(finding))
        known = next((one for one in findings if one.knows), findings[0])
        if not known.knows or known.culprit is None:
            yield _UNKNOWN if known.trouble is None else f"  The search for the module failed with {known.trouble}"
        yield _advice(known.culprit)


_UNKNOWN = (
    "  Every micro-batch was run again, and gave finite outputs and gradients: either what drew other random numbers "
    "than torch's generators is the cause, or the micro-batches together."
)


def _described(finding: Finding) -> Iterator[str]:
    """Say where the failure is, a line for each thing known."""
    yield f"micro-batch {finding.micro_batch} of {finding.micro_batches}: the loss is {finding.loss:g}"
    if finding.samples is not None:
        yield f"its samples, by their numbers in the dataset: {_listed(finding.samples)}"
    if finding.names is not None:
        yield f"its samples, by '{finding.names[0]}': {_listed(finding.names[1])}"
    culprit = finding.culprit
    if culprit is None:
        return
    if culprit.module is not None:
        given = "inputs that were not finite" if culprit.inputs_bad else "finite inputs"
        weights = f" and {', '.join(culprit.weights_bad)} not finite" if culprit.weights_bad else ""
        yield f"the first module with an output that is not finite: '{culprit.module}' ({culprit.kind}), from " + (
            f"{given}{weights}"
        )
    elif culprit.loss_bad:
        yield "every module gave finite outputs: what computes the loss from them did not"
    else:
        yield f"every output is finite, the gradient of these weights is not: {_listed(list(culprit.weights))}"


def _advice(culprit: Culprit | None) -> str:
    if culprit is not None and culprit.weights_bad:
        first = "Weights are not finite already: resume from an earlier checkpoint, with a lower learning_rate"
    elif culprit is not None and culprit.inputs_bad:
        first = "Mend or leave out these samples"
    elif culprit is not None and culprit.weights:
        first = "Look for a square root, a norm or a division at 0, whose gradient is infinite; add an epsilon"
    else:
        first = "Lower learning_rate, or warm up longer (warmup_steps); compute in bf16 or float32"
    return f'  {first}. nonfinite="skip" leaves such steps out, nonfinite="ignore" trains on as the original does.'


def _seen(failure: Failure) -> str:
    bad = [(number, loss) for number, loss in enumerate(failure.losses, start=1) if not math.isfinite(loss)]
    if bad:
        number, loss = bad[0]
        return f"the loss is {loss:g} in micro-batch {number} of {len(failure.losses)}"
    return f"the losses of this process are finite, the norm of the gradients is {failure.norm}"


def _listed(values: list[Any]) -> str:
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(map(str, values[:_SHOWN])) + more
