"""What the error of a step that is not finite says: where it is, why, and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from surestep.data.numbers import named_samples, sample_numbers
from surestep.engine.culprit import Culprit, find_culprit
from surestep.engine.nonfinite import Before, Failure
from surestep.errors import NonFiniteError
from surestep.runtime.collectives import gather_objects

if TYPE_CHECKING:
    from surestep.trainer.moment import Moment
    from surestep.trainer.trainer import Trainer

_SHOWN = 8


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


class Report:
    """Looks for the cause of a failure, on every rank, and puts it into words."""

    def __init__(self, trainer: Trainer, loader: Any, before: Before) -> None:
        self._trainer = trainer
        self._loader = loader
        self._before = before

    def error(self, failure: Failure, moment: Moment, why: str = "") -> NonFiniteError:
        """Return the error; every rank takes part. Micro-batches are run again, which moves generators and buffers."""
        finding = self._find(failure, moment)
        findings = gather_objects(finding) if self._trainer.engine.ranks > 1 else [finding]
        blamed = next((one for one in findings if one.knows), finding)
        return NonFiniteError(
            "\n".join(_lines(failure, moment, findings, blamed, why)),
            step=moment.step + 1,
            epoch=moment.progress,
            micro_batch=blamed.micro_batch,
            samples=blamed.samples,
            module=None if blamed.culprit is None else blamed.culprit.module,
        )

    def samples(self, failure: Failure, moment: Moment) -> list[list[int]] | None:
        """Return the numbers of the samples of each micro-batch, where the sampler tells them."""
        return sample_numbers(self._loader, moment.epoch, moment.samples, len(failure.group.batches))

    def _find(self, failure: Failure, moment: Moment) -> Finding:
        """Look for the micro-batch and the module; nothing that goes wrong on the way may hide the failure."""
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
        samples = self.samples(failure, moment)
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
        trainer, group = self._trainer, failure.group
        model = trainer.engine.unwrap(trainer.engine.model)
        if trainer.engine.ranks > 1 and any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
            return None
        self._before.buffers.put_back()
        self._before.put_generators_back()
        for number, inputs in enumerate(group.batches):
            batch = trainer._prepare_inputs(inputs)
            compute = partial(trainer.compute_loss, model, batch, num_items_in_batch=group.items)
            with trainer.compute_loss_context_manager():
                culprit = find_culprit(model, compute)
            if culprit is not None:
                return number, culprit
        return None


def _lines(failure: Failure, moment: Moment, findings: list[Finding], blamed: Finding, why: str) -> Iterator[str]:
    row = f", the last of {failure.in_a_row} in a row" if failure.in_a_row > 1 else ""
    yield (
        f"Step {moment.step + 1} (epoch {moment.progress:.2f}){row}: {seen(failure)}. No update was made: weights, "
        f"optimizer and schedule are those after step {moment.step}, and can be saved."
    )
    for rank, finding in enumerate(findings):
        who = f"rank {rank}, " if len(findings) > 1 else ""
        if finding.knows:
            yield from (f"  {who}{line}" for line in _described(finding))
    if blamed.culprit is None:
        yield _UNKNOWN if blamed.trouble is None else f"  The search for the module failed with {blamed.trouble}"
    if why:
        yield f"  {why}"
    yield _advice(blamed.culprit)


_UNKNOWN = (
    "  Every micro-batch was run again, and gave finite outputs and gradients: either what drew other random numbers "
    "than torch's generators is the cause, or the micro-batches together."
)


def _described(finding: Finding) -> Iterator[str]:
    """Say where the failure is, a line for each thing known."""
    yield f"micro-batch {finding.micro_batch} of {finding.micro_batches}: the loss is {finding.loss:g}"
    if finding.samples is not None:
        yield f"its samples, by their numbers in the dataset: {listed(finding.samples)}"
    if finding.names is not None:
        yield f"its samples, by '{finding.names[0]}': {listed(finding.names[1])}"
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
        yield f"every output is finite, the gradient of these weights is not: {listed(list(culprit.weights))}"


def _advice(culprit: Culprit | None) -> str:
    if culprit is not None and culprit.weights_bad:
        first = "Weights are not finite already: resume from an earlier checkpoint, with a lower learning_rate"
    elif culprit is not None and culprit.inputs_bad:
        first = "Mend or leave out these samples"
    elif culprit is not None and culprit.weights:
        first = "Look for a square root, a norm or a division at 0, whose gradient is infinite; add an epsilon"
    else:
        first = "Lower learning_rate, or warm up longer (warmup_steps); compute in bf16 or float32"
    return (
        f'  {first}. nonfinite="skip" leaves such steps out, "rewind" goes back to the last checkpoint and leaves them '
        'out, "ignore" trains on as the original does.'
    )


def seen(failure: Failure) -> str:
    """Say what was read."""
    bad = [(number, loss) for number, loss in enumerate(failure.losses, start=1) if not math.isfinite(loss)]
    if bad:
        number, loss = bad[0]
        return f"the loss is {loss:g} in micro-batch {number} of {len(failure.losses)}"
    return f"the losses of this process are finite, the norm of the gradients is {failure.norm}"


def listed(values: list[Any]) -> str:
    """Name the first of some values."""
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(map(str, values[:_SHOWN])) + more
