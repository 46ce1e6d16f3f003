"""One user's code on the original and on ours: what each saw, side by side."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import Dataset

import surestep
from surestep.training.callback import EVENTS

# Figures of the clock: their names must agree, their values cannot.
CLOCK = ("_runtime", "_per_second", "_model_preparation_time")


class Points(Dataset):
    """A small regression set; every sample carries its number, so that the order can be read back."""

    def __init__(self, size: int = 50, dim: int = 6, seed: int = 7) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(size, dim, generator=generator)
        self.y = self.x.sum(dim=1, keepdim=True).tanh()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": self.x[index], "labels": self.y[index], "number": index}


class Net(nn.Module):
    """Two layers with a norm and dropout, so that decay groups and the random state matter."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.norm = nn.LayerNorm(16)
        self.drop = nn.Dropout(dropout)
        self.last = nn.Linear(16, 1)
        self.numbers: list[int] = []

    def forward(self, x: Tensor, labels: Tensor | None = None, number: Tensor | None = None) -> dict[str, Tensor]:
        if self.training and number is not None:
            self.numbers += number.tolist()
        prediction = self.last(self.drop(torch.relu(self.norm(self.first(x)))))
        if labels is None:
            return {"logits": prediction}
        return {"loss": nn.functional.mse_loss(prediction, labels), "logits": prediction}


@dataclass
class Seen:
    """What a run came to."""

    logs: list[dict[str, Any]]
    events: list[str]
    weights: dict[str, Tensor]
    numbers: list[int]
    losses: list[float]
    state: Any
    output: Any
    trainer: Any = field(repr=False)


def _recorder(base: type) -> Any:
    seen: list[str] = []

    def listen(name: str) -> Callable[..., None]:
        def method(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append(f"{name}@{state.global_step}")

        return method

    names = [name for name in EVENTS if name != "on_init_end"]
    recorder = type("Recorder", (base,), {name: listen(name) for name in names})()
    recorder.seen = seen
    return recorder


class _Losses:
    """Records the loss of every micro-batch."""

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)  # type: ignore[misc]
        self.losses: list[float] = [*getattr(self, "losses", []), loss.item()]
        return loss


def run(
    side: Any,
    arguments: dict[str, Any],
    *,
    model: Callable[[], nn.Module] = Net,
    train: Callable[[], Any] = Points,
    evaluate: Callable[[], Any] | None = None,
    mixin: type = object,
    callbacks: Callable[[Any], list[Any]] = lambda side: [],
    folder: str | None = None,
    train_call: dict[str, Any] | None = None,
    **trainer_arguments: Any,
) -> Seen:
    """Train on one side (`transformers` or `surestep`) and return what was seen."""
    torch.manual_seed(3)
    built = model()
    recorder = _recorder(side.TrainerCallback)
    bases = tuple(base for base in (mixin, _Losses, side.Trainer) if base is not object)
    kind = type("UserTrainer", bases, {})
    made = {name: value(built) if name == "optimizers" else value for name, value in trainer_arguments.items()}
    with tempfile.TemporaryDirectory() as scratch:
        common = {"output_dir": folder or scratch, "use_cpu": True, "disable_tqdm": True, "report_to": "none"}
        trainer = kind(
            model=built,
            args=side.TrainingArguments(**{**common, "save_strategy": "no", **arguments}),
            train_dataset=train(),
            eval_dataset=evaluate() if evaluate is not None else None,
            callbacks=[recorder, *callbacks(side)],
            **made,
        )
        output = trainer.train(**(train_call or {}))
    weights = {name: value.detach().clone() for name, value in built.state_dict().items()}
    return Seen(
        logs=copy.deepcopy(trainer.state.log_history),
        events=recorder.seen,
        weights=weights,
        numbers=list(getattr(built, "numbers", [])),
        losses=list(getattr(trainer, "losses", [])),
        state=trainer.state,
        output=output,
        trainer=trainer,
    )


def both(arguments: dict[str, Any], **options: Any) -> tuple[Seen, Seen]:
    """Return what the original saw and what ours saw."""
    return run(transformers, arguments, **options), run(surestep, arguments, **options)


def assert_same(theirs: Seen, ours: Seen, *, tolerance: float = 0.0) -> None:
    """Compare order, losses, logs, events, weights and state; `tolerance` is relative, 0 means bit for bit."""
    assert ours.numbers == theirs.numbers, "order of samples"
    assert ours.events == theirs.events, "events"
    assert ours.state.global_step == theirs.state.global_step
    assert ours.state.epoch == theirs.state.epoch
    assert ours.state.max_steps == theirs.state.max_steps
    assert len(ours.losses) == len(theirs.losses)
    for one, other in zip(theirs.losses, ours.losses, strict=True):
        assert_close(one, other, tolerance, "loss of a micro-batch")
    assert [list(entry) for entry in ours.logs] == [list(entry) for entry in theirs.logs] or [
        sorted(entry) for entry in ours.logs
    ] == [sorted(entry) for entry in theirs.logs], "keys of the logs"
    for number, (entry, other) in enumerate(zip(theirs.logs, ours.logs, strict=True)):
        for name, value in entry.items():
            if not name.endswith(CLOCK):
                assert_close(value, other[name], tolerance or _SUMS.get(name, 0.0), f"log {number}, {name}")
    for name, value in theirs.weights.items():
        if tolerance:
            torch.testing.assert_close(ours.weights[name], value, rtol=tolerance, atol=tolerance * 0.1)
        else:
            assert torch.equal(ours.weights[name], value), f"weights of {name}"
    assert ours.state.best_metric == theirs.state.best_metric or math.isclose(
        ours.state.best_metric, theirs.state.best_metric, rel_tol=tolerance or 1e-6
    )
    assert ours.state.best_global_step == theirs.state.best_global_step


# Evaluation sums in float64 and the original in float32; the mean over a run is summed in another order.
_SUMS = {"eval_loss": 1e-6, "train_loss": 1e-6}


def assert_close(one: Any, other: Any, tolerance: float, what: str) -> None:
    if isinstance(one, float) and isinstance(other, float):
        same = one == other or math.isclose(one, other, rel_tol=tolerance, abs_tol=1e-12 if tolerance else 0.0)
        assert same or (math.isnan(one) and math.isnan(other)), f"{what}: {one!r} there, {other!r} here"
    else:
        assert one == other, f"{what}: {one!r} there, {other!r} here"
