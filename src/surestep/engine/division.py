"""What the losses of a step are divided by, where a loss gives its weight along with its sum.

The division owns the sums and weights of the step under way. A weight may be known only after forward, so that what a
step is divided by is known when its last micro-batch has been through the model, on every rank. Until then a sum is
divided by a provisional power of two, which no rounding depends on. Before the last backward the weights are summed
over the ranks, what has accumulated is brought to the true divisor, and the last loss is divided by it: what is
exchanged, clipped, unscaled and logged afterwards needs to know nothing. No value is read on the host.

Several names have divisors of their own. The first one's gradients accumulate in `.grad`; those of each further name
are kept aside until the divisors are known, which takes a backward for each name and as much memory as the gradients
take. In a step of one micro-batch the divisors are known at once, and one backward does. So they are where the weights
of all micro-batches are told before the first: each loss is then divided by what it is to be divided by.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from surestep.engine.strategies.base import Strategy
from surestep.errors import ModelError

# A loss's sum and weight by its name; the name of the only one may be empty.
Pairs = Mapping[str, tuple[Tensor, Tensor | float]]
# A weight by the same names.
Weights = Mapping[str, Tensor | float]
# How far a weight may be from what was told beforehand: float32 sums of many numbers differ by their order.
_TOLD_WITHIN = 1e-3


@dataclass
class _Account:
    """What one name has come to in a step on this rank: sums, weights, and what sums are divided by for now.

    `aside` are its gradients where they are kept out of `.grad`, one for each parameter.
    """

    total: Tensor
    weight: Tensor
    provisional: Tensor | None = None
    aside: list[Tensor | None] | None = None


class Division:
    """Divides the losses of a run's steps by their weights over micro-batches and ranks, and runs backward from them.

    `backward` is the engine's. One that `settles` exchanges nothing during the micro-batches of a step, but for what is
    known before them: `settle` ends the step. `parts` are the named losses of the last step: this rank's share of each,
    whose mean over the ranks is the loss.
    """

    def __init__(self, strategy: Strategy, backward: Callable[..., None], *, settles: bool = False) -> None:
        self._strategy = strategy
        self._settles = settles
        self._backward = backward
        self._wide = torch.float32 if strategy.device.type == "mps" else torch.float64
        self._names: tuple[str, ...] | None = None
        self._agreed = False
        self._joined = False
        self._told: Tensor | None = None
        self._provisional: dict[str, Tensor] = {}
        self._accounts: dict[str, _Account] = {}
        self._known: dict[str, Tensor] | None = None
        # What was told of the first step, and what has been met of it, by name.
        self._unchecked: dict[str, Tensor] | None = None
        self._met: dict[str, Tensor] = {}
        self._checked = False
        self.parts: dict[str, Tensor] = {}

    def begin_step(self, weights: Weights | None = None, *, uneven: bool = False) -> None:
        """Forget the step before, and one that was broken off.

        `weights` are those of this rank's micro-batches together, where they are known; every rank then gives some.
        """
        self._accounts, self.parts, self._told, self._joined, self._known = {}, {}, None, False, None
        if weights is not None:
            device = self._strategy.device
            own = {name: self._as_wide(weights[name], device) for name in sorted(weights)}
            self._known = self._divisors(own, uneven=uneven)
            self._unchecked, self._met = None if self._checked else own, {}
            zero = torch.zeros((), device=device, dtype=self._wide)
            self.parts = {name: zero for name in self._known if name}

    def backward(
        self, parameters: Sequence[nn.Parameter], pairs: Pairs, *, micro_batches: float, last: bool, uneven: bool
    ) -> Tensor:
        """Run backward from the losses of a micro-batch and return its share of the step's loss, detached.

        `micro_batches` is how many there are to a step, in the mean over the ranks, and `last` says whether this is the
        last of this rank; `uneven` says that some rank has none. The shares of a step add up to the loss of this rank,
        whose mean over the ranks is that of the step; those before the last are what the mean of the micro-batch would
        contribute if all weighed alike.
        """
        self._check_names(pairs)
        if self._known is not None:
            return self._divide(pairs, self._known, last=last)
        share = self._add(pairs) / micro_batches
        if last and not self._settles:
            return self._finish(parameters, pairs, uneven=uneven)
        share = share.to(_full(next(iter(pairs.values()))[0].dtype))
        self._told = share if self._told is None else self._told + share
        self._accumulate(parameters, pairs, micro_batches)
        return share

    def join(self) -> None:
        """Take part in a step in which some rank has no micro-batch: as that rank, or as one whose loss is no pair."""
        if not self._joined:
            zero = torch.zeros((), device=self._strategy.device)
            self.parts = {name: zero for name in self._gathered({}) if name}

    def settle(self, parameters: Sequence[nn.Parameter]) -> Tensor | None:
        """Bring what a step has accumulated to its divisors; return what the shares told lack of its loss.

        Every rank calls it, one without a micro-batch too; None where no loss of this rank was a pair, or where the
        divisors were known beforehand.
        """
        if self._known is not None:
            return None
        own = {name: self._accounts[name].weight for name in sorted(self._accounts)}
        divisors = self._divisors(own, uneven=True)
        for name, account in self._accounts.items():
            if account.provisional is not None:
                _rescale(parameters, account, account.provisional / divisors[name])
        shares = {name: account.total / divisors[name] for name, account in self._accounts.items()}
        zero = torch.zeros((), device=self._strategy.device)
        self.parts = {name: shares.get(name, zero) for name in divisors if name}
        told, self._accounts, self._told = self._told, {}, None
        return None if told is None else (torch.stack(list(shares.values())).sum() - told).to(told.dtype)

    def _check_names(self, pairs: Pairs) -> None:
        names = tuple(sorted(pairs))
        if self._names is None:
            self._names = names
        if names != self._names:
            raise ModelError(
                f"The loss has the parts {_listed(names)}, and had {_listed(self._names)} before. Return the same "
                "parts for every micro-batch; one that has nothing of a part gives (0 * other_loss, 0) for it."
            )

    def _add(self, pairs: Pairs) -> Tensor:
        """Take the sums and weights of a micro-batch, and return the sum of their means."""
        mean: Tensor | None = None
        for name, (own_total, own_weight) in pairs.items():
            total, weight = own_total.detach().to(self._wide), self._as_wide(own_weight, own_total.device)
            known = self._accounts.get(name)
            if known is None:
                self._accounts[name] = _Account(total, weight)
            else:
                known.total, known.weight = known.total + total, known.weight + weight
            own = total / _or_infinite(weight)
            mean = own if mean is None else mean + own
        assert mean is not None
        return mean

    def _as_wide(self, weight: Tensor | float, device: torch.device) -> Tensor:
        if isinstance(weight, Tensor):
            return weight.detach().to(device, self._wide)
        return torch.full((), weight, dtype=self._wide, device=device)

    # Where the divisors are known beforehand

    def _divide(self, pairs: Pairs, divisors: dict[str, Tensor], *, last: bool) -> Tensor:
        if pairs.keys() != divisors.keys():
            raise ModelError(
                f"The loss has the parts {_listed(tuple(pairs))}, and its weight was told for "
                f"{_listed(tuple(divisors))}. Let weigh_loss (or the loss's weight) name the same parts."
            )
        if self._unchecked is not None:
            self._check_told(pairs, self._unchecked, last=last)
        for name in filter(None, pairs):
            self.parts[name] = self.parts[name] + pairs[name][0].detach().to(self._wide) / divisors[name]
        loss = _together([_divided(total, divisors[name]) for name, (total, _) in pairs.items()])
        self._backward(loss)
        return loss.detach()

    def _check_told(self, pairs: Pairs, told: Mapping[str, Tensor], *, last: bool) -> None:
        """Compare, in the first step, what losses weigh with what was told; this reads the device."""
        for name, (total, weight) in pairs.items():
            self._met[name] = self._met.get(name, 0) + self._as_wide(weight, total.device)
        if not last:
            return
        self._unchecked = None
        self._checked = True
        for name, met in self._met.items():
            if not math.isclose(float(met), float(told[name]), rel_tol=_TOLD_WITHIN):
                raise ModelError(
                    f"The loss{f' {name!r}' if name else ''} weighs {float(met):g} in the first step, and "
                    f"{float(told[name]):g} was told beforehand. Let weigh_loss (or the loss's weight) count what the "
                    "loss counts, or leave it out."
                )

    # Before the divisors are known

    def _accumulate(self, parameters: Sequence[nn.Parameter], pairs: Pairs, micro_batches: float) -> None:
        main = next(iter(self._accounts))
        # A part that has no graph has no gradient; where none has, torch says so.
        names = [name for name, (total, _) in pairs.items() if total.requires_grad] or [main]
        for name in names:
            account, (total, weight) = self._accounts[name], pairs[name]
            if account.provisional is None:
                expected = self._as_wide(weight, total.device) * micro_batches
                # After a micro-batch in which nothing counts, the last step's is as near as one gets.
                last = self._provisional.get(name, torch.ones_like(expected))
                account.provisional = torch.where(expected == 0, last, _power_of_two(expected))
                self._provisional[name] = account.provisional
            with _kept_aside(parameters, None if name == main else account):
                self._backward(_divided(total, account.provisional), retain_graph=name != names[-1])

    # When they are known

    def _finish(self, parameters: Sequence[nn.Parameter], pairs: Pairs, *, uneven: bool) -> Tensor:
        own = {name: self._accounts[name].weight for name in sorted(self._accounts)}
        divisors = self._divisors(own, uneven=uneven)
        for name, account in self._accounts.items():
            if account.provisional is not None:
                _rescale(parameters, account, account.provisional / divisors[name])
        loss = _together([_divided(total, divisors[name]) for name, (total, _) in pairs.items()])
        accounts, told = self._accounts, self._told
        self._accounts, self._told = {}, None
        self._backward(loss)
        shares = {name: account.total / divisors[name] for name, account in accounts.items()}
        self.parts = {name: share for name, share in shares.items() if name}
        if told is None:
            return loss.detach()
        return (torch.stack(list(shares.values())).sum() - told).to(loss.dtype)

    def _divisors(self, own: dict[str, Tensor], *, uneven: bool) -> dict[str, Tensor]:
        """Return what each sum is divided by, given this rank's weights, and that gradients are averaged over ranks."""
        size = self._strategy.world.size
        if uneven:
            weights = self._gathered(own)
            self._joined = True
        elif size == 1:
            weights = own
        else:
            if not self._agreed:
                self._check_agreement(own)
                self._agreed = True
            weights = dict(zip(own, self._strategy.sum(torch.stack(list(own.values()))).unbind(), strict=True))
        return {name: _or_infinite(weight / size) for name, weight in weights.items()}

    def _gathered(self, own: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights over all ranks where some may have none: empty where no rank has any."""
        if not any(self._check_agreement(own)):
            return {}
        everyone = self._strategy.gather({name: weight.reshape(1) for name, weight in own.items()} or None)
        return {name: weights.sum() for name, weights in everyone.items()}

    def _check_agreement(self, own: Mapping[str, Tensor]) -> list[int]:
        """Return a number for what parts each rank's loss has, 0 for none; they must be the same."""
        known = self._strategy.agree(zlib.crc32("\n".join(own).encode()) + 1 if own else 0)
        if len({number for number in known if number}) > 1:
            raise ModelError(
                f"The loss has the parts {_listed(tuple(own))} on this rank and others elsewhere. Return the same "
                "parts on every rank; a batch that has nothing of a part gives (0 * other_loss, 0) for it."
            )
        return known


def _or_infinite(weight: Tensor) -> Tensor:
    """Return a weight, or infinity for a weight of 0: a sum that weighs nothing counts nothing."""
    return torch.where(weight == 0, torch.inf, weight)


def _power_of_two(number: Tensor) -> Tensor:
    """Return the power of two next above a number that is not 0."""
    number = number.abs()
    return number / torch.frexp(number).mantissa


def _divided(total: Tensor, divisor: Tensor) -> Tensor:
    """Divide a sum in its own precision, but not in a half one."""
    dtype = _full(total.dtype)
    return total.to(dtype) / divisor.to(dtype)


def _together(terms: list[Tensor]) -> Tensor:
    return terms[0] if len(terms) == 1 else torch.stack([term.to(terms[0].dtype) for term in terms]).sum()


def _full(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


@contextmanager
def _kept_aside(parameters: Sequence[nn.Parameter], account: _Account | None) -> Iterator[None]:
    """Let gradients accumulate in an account inside the block, and not in `.grad`; without one, in `.grad`."""
    if account is None:
        yield
        return
    own = [parameter.grad for parameter in parameters]
    for parameter, grad in zip(parameters, account.aside or [None] * len(own), strict=True):
        parameter.grad = grad
    try:
        yield
    finally:
        account.aside = [parameter.grad for parameter in parameters]
        for parameter, grad in zip(parameters, own, strict=True):
            parameter.grad = grad


def _rescale(parameters: Sequence[nn.Parameter], account: _Account, factor: Tensor) -> None:
    """Multiply what an account has accumulated; what was kept aside joins the rest."""
    if account.aside is None:
        _multiply([parameter.grad for parameter in parameters if parameter.grad is not None], factor)
        return
    _multiply([grad for grad in account.aside if grad is not None], factor)
    for parameter, grad in zip(parameters, account.aside, strict=True):
        if grad is not None:
            parameter.grad = grad if parameter.grad is None else parameter.grad.add_(grad)


def _multiply(grads: list[Tensor], factor: Tensor) -> None:
    for dtype in {grad.dtype for grad in grads}:
        of_dtype = [grad for grad in grads if grad.dtype == dtype]
        # Half precision is multiplied by a factor that has not lost its own. It lies on the gradients' device: the
        # kernel reads it there, and nobody waits.
        exact = factor if dtype == torch.float64 else factor.float()
        dense = [grad for grad in of_dtype if grad.layout == torch.strided]
        if dense:
            torch._foreach_mul_(dense, exact)
        for grad in of_dtype:
            if grad.layout != torch.strided:
                grad.mul_(exact)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in names if name) or "none with a name"
