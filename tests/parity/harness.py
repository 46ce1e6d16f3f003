"""One user's code on the original and on ours: what each saw, side by side."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import surestep
from surestep.training.callback import EVENTS
from tests.parity.compare import Seen, assert_same
from tests.parity.models import Net, Points

__all__ = ["Case", "Seen", "as_parameters", "assert_same", "both", "check", "run"]

_FLAGS = {
    "should_log": "log",
    "should_evaluate": "evaluate",
    "should_save": "save",
    "should_epoch_stop": "leave epoch",
    "should_training_stop": "leave",
}


@dataclass(frozen=True)
class Case:
    """A row of a table: arguments and objects that both sides get.

    `shows` must hold for what the original saw, so that a row cannot pass without its subject. A `tolerance` needs a
    reason.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    shows: Callable[[Seen], bool] = lambda seen: seen.state.global_step > 0
    tolerance: float = 0.0
    because: str = ""

    def __post_init__(self) -> None:
        assert bool(self.tolerance) == bool(self.because), f"{self.name}: a tolerance and its reason go together"


def as_parameters(cases: list[Case]) -> pytest.MarkDecorator:
    """Return the decorator that runs a test over a table."""
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def check(case: Case) -> tuple[Seen, Seen]:
    """Run a row on both sides, compare, and return what was seen."""
    theirs, ours = both(case.arguments, **case.options)
    assert case.shows(theirs), "the row does not show what it is there for"
    assert_same(theirs, ours, tolerance=case.tolerance)
    return theirs, ours


def _recorder(base: type) -> Any:
    seen: list[str] = []

    def listen(name: str) -> Callable[..., None]:
        def method(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            asked = [word for flag, word in _FLAGS.items() if getattr(control, flag)]
            seen.append(f"{name}@{state.global_step}" + (f" ({', '.join(asked)})" if asked else ""))

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
    drive: Callable[[Any], Any] = lambda trainer: trainer.train(),
    **trainer_arguments: Any,
) -> Seen:
    """Make a trainer on one side (`transformers` or `surestep`), `drive` it, and return what was seen.

    `optimizers` is called with the model. `mixin` goes before the side's trainer, as a user's subclass would.
    """
    torch.manual_seed(3)
    built = None if "model_init" in trainer_arguments else model()
    recorder = _recorder(side.TrainerCallback)
    bases = tuple(base for base in (mixin, _Losses, side.Trainer) if base is not object)
    kind = type("UserTrainer", bases, {})
    made = {name: value(built) if name == "optimizers" else value for name, value in trainer_arguments.items()}
    with tempfile.TemporaryDirectory() as scratch:
        root = folder or scratch
        common = {"output_dir": root, "use_cpu": True, "disable_tqdm": True, "report_to": "none"}
        trainer = kind(
            model=built,
            args=side.TrainingArguments(**{**common, "save_strategy": "no", **arguments}),
            train_dataset=train(),
            eval_dataset=evaluate() if evaluate is not None else None,
            callbacks=[recorder, *callbacks(side)],
            **made,
        )
        output = drive(trainer)
        files = sorted(path.name for path in Path(root).iterdir() if path.is_dir())
    return Seen(
        logs=copy.deepcopy(trainer.state.log_history),
        events=recorder.seen,
        weights={name: value.detach().clone() for name, value in trainer.model.state_dict().items()},
        numbers=list(getattr(trainer.model, "numbers", [])),
        losses=list(getattr(trainer, "losses", [])),
        state=trainer.state,
        output=output,
        optimizer=trainer.optimizer.state_dict() if trainer.optimizer is not None else None,
        rates=trainer.get_learning_rates() if trainer.optimizer is not None else [],
        files=files,
        trainer=trainer,
    )


def both(arguments: dict[str, Any], **options: Any) -> tuple[Seen, Seen]:
    """Return what the original saw and what ours saw."""
    import transformers

    return run(transformers, arguments, **options), run(surestep, arguments, **options)
