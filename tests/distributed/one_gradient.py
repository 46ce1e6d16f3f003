"""One batch, its splits over micro-batches and ranks, and the ways to give a loss: what tests of one gradient share.

Ranks are threads here: they go through the trainer's own steps and the engine's, and meet where processes would.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import surestep as s
from surestep.engine.engine import Engine
from surestep.engine.precision import make_precision
from surestep.runtime.world import World
from surestep.training.protocols import Group
from surestep.training.tally import Tally

CPU = torch.device("cpu")
IGNORED, WORDS, WIDTH = -100, 7, 5
Batch = dict[str, Tensor]


class Meeting:
    """Where the threads of a group hand each other what they have."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=60)
        self.places: list[Any] = [None] * size

    def swap(self, rank: int, value: Any) -> list[Any]:
        self.places[rank] = value
        self.barrier.wait()
        everyone = list(self.places)
        self.barrier.wait()
        return everyone


class Threads:
    """A strategy whose ranks are threads; `exchange` stands for what torch's wrapper does in the last backward."""

    precisions = frozenset({"no", "bf16", "fp16"})
    device = CPU

    def __init__(self, rank: int, meeting: Meeting) -> None:
        size = len(meeting.places)
        self.world = World(rank=rank, local_rank=rank, size=size, local_size=size)
        self.meeting = meeting

    def swap(self, value: Any) -> list[Any]:
        return self.meeting.swap(self.world.rank, value)

    def prepare(self, model: nn.Module) -> nn.Module:
        return model

    def unwrap(self, model: nn.Module) -> nn.Module:
        return model

    def alone(self, model: nn.Module) -> nn.Module:
        return model

    def accumulating(self, model: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def level(self, model: nn.Module) -> None: ...

    def exchange(self, parameters: Iterable[nn.Parameter]) -> None:
        trained = list(parameters)
        everyone = self.swap([None if p.grad is None else p.grad.clone() for p in trained])
        for place, parameter in enumerate(trained):
            grads = [grads[place] for grads in everyone if grads[place] is not None]
            if grads:
                parameter.grad = torch.stack(grads).sum(0) / self.world.size

    def sum(self, value: Tensor) -> Tensor:
        return torch.stack(self.swap(value.clone())).sum(0)

    def mean(self, value: Tensor) -> Tensor:
        return self.sum(value) / self.world.size

    def gather(self, value: Any) -> Any:
        everyone = [one for one in self.swap(value) if one is not None]
        return {name: torch.cat([one[name] for one in everyone]) for name in everyone[0]} if everyone else None

    def agree(self, number: int) -> list[int]:
        return self.swap(number)


# A batch and a model


def batch_of(size: int, seed: int) -> Batch:
    """Make sentences with ragged labels: some have none that counts."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, WORDS, (size, WIDTH), generator=generator)
    ignored = torch.rand(size, WIDTH, generator=generator) < torch.rand(size, 1, generator=generator)
    ignored[0, 0] = False
    values = torch.randn(size, generator=generator, dtype=torch.float64)
    return {"tokens": tokens, "labels": tokens.roll(1, 1).masked_fill(ignored, IGNORED), "values": values}


class Tagger(nn.Module):
    """Names each word and gives each sentence a value; its own loss divides by the count that it is given."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head, self.value = nn.Embedding(WORDS, 6), nn.Linear(6, WORDS), nn.Linear(6, 1)
        self.to(dtype)

    def forward(self, tokens: Tensor, labels: Any = None, values: Any = None, **kwargs: Any) -> dict[str, Tensor]:
        hidden = torch.tanh(self.embed(tokens))
        outputs = {"logits": self.head(hidden), "value": self.value(hidden.mean(1)).squeeze(-1)}
        if labels is not None:
            total, weight = crossed(outputs, labels)
            count = kwargs.get("num_items_in_batch")
            outputs["loss"] = total / (weight if count is None else count)
        return outputs


def crossed(outputs: Any, labels: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    flat = outputs["logits"].flatten(0, 1), labels.flatten()
    return nn.functional.cross_entropy(*flat, reduction="sum", **options), (labels != IGNORED).sum()


class Causal(Tagger):
    """The same with labels that are shifted, which it says itself: the first of a row is no target."""

    shifts_labels = True

    def forward(self, tokens: Tensor, labels: Any = None, values: Any = None, **kwargs: Any) -> dict[str, Tensor]:
        outputs = super().forward(tokens)
        if labels is not None:
            total, weight = shifted(outputs, labels)
            count = kwargs.get("num_items_in_batch")
            outputs["loss"] = total / (weight if count is None else count)
        return outputs


class Closed(Causal):
    """A causal model that takes no count."""

    def forward(self, tokens: Tensor, labels: Any = None, values: Any = None) -> dict[str, Tensor]:  # type: ignore[override]
        return super().forward(tokens, labels, values)


def shifted(outputs: Any, labels: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    return crossed({"logits": outputs["logits"][:, :-1]}, labels[:, 1:], **options)


# Ways to give a loss. Each comes with its definition: named sums and weights of a batch.


def valued(outputs: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
    """A loss whose weight comes of the forward pass: values, weighed by how sure the model is."""
    sure = outputs["logits"].detach().softmax(-1).amax(-1).mean(1)
    return (sure * outputs["value"].square()).sum(), sure.sum()


def rare(outputs: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
    """A loss over the first word alone, which few sentences have a label for."""
    return crossed({"logits": outputs["logits"][:, :1]}, labels[:, :1])


class Weighed:
    """Parts whose weights are told before the loss is computed; the second is a loss over the first word alone."""

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Any:
        return {"words": crossed(outputs, labels), "rare": rare(outputs, labels)}

    def weight(self, batch: Batch) -> Any:
        labels = batch["labels"]
        return {"words": (labels != IGNORED).sum(), "rare": (labels[:, :1] != IGNORED).sum()}


def late(loss: Any) -> Any:
    """The same loss, its weight known only with it."""
    return lambda outputs, labels, num_items_in_batch=None: loss(outputs, labels)


def by_count(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    return crossed(outputs, labels)[0] / num_items_in_batch


def as_tuple(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Any:
    return crossed(outputs, labels)


def as_parts(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Any:
    return {"words": crossed(outputs, labels), "value": valued(outputs, labels), "rare": rare(outputs, labels)}


SMOOTHED, WEIGHTS = 0.2, [0.5, 2.0, 1.0, 0.0, 3.0, 0.1, 1.0]
SMOOTH = s.TokenCrossEntropyLoss(shift=True, class_weights=WEIGHTS, label_smoothing=SMOOTHED)


def everything(outputs: Any, labels: Tensor) -> Any:
    """A loss of the user's: words that are shifted, weighed by class and smoothed; beside them two auxiliary losses."""
    return {"words": SMOOTH(outputs, labels), "value": valued(outputs, labels), "rare": rare(outputs, labels)}


class Overrides(s.Trainer):
    """Computes its loss by itself, and returns it with its weight."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        outputs = model(inputs["tokens"])
        error = outputs["value"] - inputs["values"].to(outputs["value"].dtype)
        loss = {"words": crossed(outputs, inputs["labels"]), "value": (error.square().sum(), len(error))}
        return (loss, outputs) if return_outputs else loss


Definition = Callable[[Any, Batch], Sequence[tuple[Tensor, Tensor | float]]]


def weighed(outputs: Any, batch: Batch) -> Sequence[tuple[Tensor, Tensor]]:
    weights = torch.tensor(WEIGHTS, dtype=outputs["logits"].dtype)
    total, _ = crossed(outputs, batch["labels"], weight=weights, label_smoothing=SMOOTHED)
    return [(total, weights[batch["labels"][batch["labels"] != IGNORED]].sum())]


def everything_by_definition(outputs: Any, batch: Batch) -> Sequence[tuple[Tensor, Tensor]]:
    labels, weights = batch["labels"], torch.tensor(WEIGHTS, dtype=outputs["logits"].dtype)
    total, _ = shifted(outputs, labels, weight=weights, label_smoothing=SMOOTHED)
    targets = labels[:, 1:]
    words = total, weights[targets[targets != IGNORED]].sum()
    return [words, valued(outputs, labels), rare(outputs, labels)]


def squared(outputs: Any, batch: Batch) -> tuple[Tensor, float]:
    error = outputs["value"] - batch["values"].to(outputs["value"].dtype)
    return error.square().sum(), len(error)


@dataclass(frozen=True)
class Way:
    """A way to give a loss, and what it is by definition."""

    definition: Definition
    function: Any = None
    kind: type[s.Trainer] = s.Trainer
    model: type[Tagger] = Tagger
    arguments: tuple[tuple[str, Any], ...] = ()


PLAIN: Definition = lambda outputs, batch: [crossed(outputs, batch["labels"])]  # noqa: E731 (one of a table)
WAYS = {
    "the model counts": Way(PLAIN),
    "label smoothing": Way(
        lambda outputs, batch: [crossed(outputs, batch["labels"], label_smoothing=SMOOTHED)],
        arguments=(("label_smoothing_factor", SMOOTHED),),
    ),
    "a causal model counts": Way(lambda outputs, batch: [shifted(outputs, batch["labels"])], model=Causal),
    "label smoothing of a causal model": Way(
        lambda outputs, batch: [shifted(outputs, batch["labels"], label_smoothing=SMOOTHED)],
        model=Causal,
        arguments=(("label_smoothing_factor", SMOOTHED),),
    ),
    "a function that counts": Way(PLAIN, by_count),
    "a tuple": Way(PLAIN, as_tuple),
    "a family": Way(PLAIN, s.TokenCrossEntropyLoss(shift=False)),
    "a family, late": Way(PLAIN, late(s.TokenCrossEntropyLoss(shift=False))),
    "a weighted family": Way(weighed, s.TokenCrossEntropyLoss(shift=False, class_weights=WEIGHTS, label_smoothing=0.2)),
    "parts": Way(
        lambda outputs, batch: [f(outputs, batch["labels"]) for f in (crossed, valued, rare)],
        as_parts,
    ),
    "parts weighed beforehand": Way(
        lambda outputs, batch: [f(outputs, batch["labels"]) for f in (crossed, rare)],
        Weighed(),
    ),
    "everything at once": Way(everything_by_definition, everything, model=Closed),
    "an override": Way(
        lambda outputs, batch: [crossed(outputs, batch["labels"]), squared(outputs, batch)], None, Overrides
    ),
}


# A step


@dataclass
class Step:
    """What a step came to: gradients by rank, and the loss that would be logged."""

    gradients: list[Tensor]
    loss: float
    parts: dict[str, float]


def flat(model: nn.Module) -> Tensor:
    return torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in model.parameters()])


def at_once(way: Way, batch: Batch, dtype: torch.dtype) -> tuple[Tensor, float]:
    """Return gradient and loss of one big batch, by the definition."""
    model = way.model(dtype)
    pairs = way.definition(model(batch["tokens"]), batch)
    loss = torch.stack([total / weight if weight else 0 * total for total, weight in pairs]).sum()
    loss.backward()
    return flat(model), float(loss.detach())


class Silent:
    def fire(self, event: str, **extra: Any) -> None: ...


@dataclass
class Ranks:
    """Trainers of one way to give a loss, one for each rank, that go through a step together."""

    trainers: list[s.Trainer]
    meeting: Meeting

    @classmethod
    def make(cls, folder: Path, way: Way, size: int, dtype: torch.dtype, precision: str = "no") -> Ranks:
        meeting, trainers = Meeting(size), []
        for rank in range(size):
            quiet = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "remove_unused_columns": False}
            args = s.TrainingArguments(str(folder), **quiet, **dict(way.arguments))
            trainer = way.kind(way.model(dtype), args, compute_loss_func=way.function)
            trainer.engine = Engine(Threads(rank, meeting), make_precision(precision, CPU))
            trainer._world = trainer.engine.strategy.world
            trainer.engine.prepare(trainer.model)
            trainer.engine.weigh = trainer._weigher()
            trainers.append(trainer)
        return cls(trainers, meeting)

    def step(self, shares: Sequence[Sequence[Batch]]) -> Step:
        """Go through a step: `shares` are each rank's micro-batches."""
        counts = tuple(len(share) for share in shares) if len(shares) > 1 else None
        with ThreadPoolExecutor(len(shares)) as threads:
            running = [
                threads.submit(self._step, trainer, share, counts)
                for trainer, share in zip(self.trainers, shares, strict=True)
            ]
        failures = [error for one in running if (error := one.exception()) is not None]
        for failure in failures:
            # A rank whose partner failed has only a broken meeting to tell of.
            if not isinstance(failure, threading.BrokenBarrierError):
                raise failure
        tallies = [one.result() for one in running]
        size = len(shares)
        for tally in tallies:
            tally.steps = 1
        parts = [tally.drain_parts() for tally in tallies]
        return Step(
            [flat(trainer.model) for trainer in self.trainers],
            sum(float(tally.loss) for tally in tallies) / size,
            {name: sum(of_rank[name] for of_rank in parts) / size for name in parts[0]},
        )

    def _step(self, trainer: s.Trainer, share: Sequence[Batch], counts: tuple[int, ...] | None) -> Tally:
        engine, tally = trainer.engine, Tally(CPU)
        try:
            engine.zero_grad()
            batches, items = trainer.get_batch_samples(iter(share), len(share), CPU)
            engine.forward_backward(trainer, Group(batches, items, max(counts or [1]), counts), tally, Silent())
            if counts is not None and 0 not in counts:
                engine.strategy.exchange(trainer.model.parameters())
        except BaseException:
            self.meeting.barrier.abort()
            raise
        return tally


def cut(batch: Batch, sizes: Sequence[Sequence[int]]) -> list[list[Batch]]:
    """Cut a batch into micro-batches of so many samples, rank by rank."""
    pieces = iter(zip(*(value.split([n for rank in sizes for n in rank]) for value in batch.values()), strict=True))
    return [[dict(zip(batch, next(pieces), strict=True)) for _ in rank] for rank in sizes]
