"""A run that the original began and this library ends, against the original without interruption: bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import surestep
from tests.parity import tiny
from tests.parity.compare import Seen, assert_close, assert_same_logs
from tests.parity.harness import run
from tests.parity.models import FrozenNet, Net, Points, pad
from tests.parity.test_transformers_models import Prefixed

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
# Longer than any run here: a resumed run saves at its end only.
_NEVER = 1000
BASE: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "weight_decay": 0.1,
    "logging_steps": 1,
    "save_strategy": "steps",
    "save_steps": 3,
    "num_train_epochs": 2,
}


@dataclass(frozen=True)
class Row:
    """A run; `steps` are the checkpoints to resume from: in the middle of an epoch and between two."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    steps: tuple[int, ...] = (3, 6)
    tolerance: float = 0.0
    needs: str = "transformers"
    shows: Callable[[Seen], bool] = lambda seen: seen.state.global_step > 6


def adapted() -> Any:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(tiny.llama(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.2))


class Wide(Net):
    """Wide enough that optimizers in 8 bits keep 8 bits of a state."""

    def __init__(self) -> None:
        super().__init__(0.3)
        self.first, self.norm, self.last = nn.Linear(6, 2048), nn.LayerNorm(2048), nn.Linear(2048, 1)


def dtypes(tree: Any) -> Any:
    """Return the formats of the tensors in a tree."""
    return [dtypes(item) for item in tree.values()] if isinstance(tree, dict) else getattr(tree, "dtype", None)


def two_rates(model: Any) -> tuple[Any, None]:
    groups = [
        {"params": list(model.first.parameters()), "lr": 1e-3},
        {"params": [*model.last.parameters(), *model.norm.parameters()]},
    ]
    return torch.optim.AdamW(groups, lr=1e-2), None


NET: dict[str, Any] = {"model": lambda: Net(0.3), "train": lambda: Points(24)}
TEXT: dict[str, Any] = {"train": lambda: Prefixed(24), "data_collator": pad}
EVALUATED = {"eval_strategy": "steps", "eval_steps": 1}
PLATEAU = {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"patience": 0, "threshold": 0.5}}
ROWS = [
    Row("usual"),
    Row("plain adamw", {"optim": "adamw_torch", "lr_scheduler_type": "cosine", "warmup_steps": 2}),
    Row("sgd", {"optim": "sgd", "optim_args": None}),
    # Its factors are multiplied in another order, so that the last bit differs, with and without a resume.
    Row("adafactor", {"optim": "adafactor"}, tolerance=1e-6),
    Row("adagrad", {"optim": "adagrad"}),
    Row("rmsprop", {"optim": "rmsprop"}),
    Row("accumulation", {"gradient_accumulation_steps": 2, "num_train_epochs": 3}, steps=(2, 3, 7),
        shows=lambda seen: seen.state.global_step == 9),
    Row("uneven accumulation", {"gradient_accumulation_steps": 4, "num_train_epochs": 4}, steps=(2, 3)),
    Row("groups of the user's", {}, {"optimizers": two_rates}),
    Row("frozen", {}, {"model": FrozenNet}),
    Row("plateau", {**PLATEAU, **EVALUATED}, {"evaluate": lambda: Points(8, seed=3)},
        shows=lambda seen: seen.rates[0] < 1e-2),
    Row("greedy", {"lr_scheduler_type": "greedy", **EVALUATED}, {"evaluate": lambda: Points(8, seed=3)}),
    Row("tied", {}, {"model": tiny.gpt2, **TEXT}),
    Row("adapters", {}, {"model": adapted, **TEXT}),
    Row("8 bits", {"optim": "adamw_bnb_8bit"}, {"model": Wide}, needs="bitsandbytes",
        shows=lambda seen: "torch.uint8" in str(dtypes(seen.optimizer["state"]))),
]  # fmt: skip


def begin(folder: Path, row: Row, **changes: Any) -> Seen:
    """Train under the original."""
    arguments = {**BASE, "save_steps": 1, **row.arguments, **changes}
    return run(transformers, arguments, folder=str(folder), **{**NET, **row.options})


def go_on(folder: Path, row: Row, checkpoint: Any, **changes: Any) -> Seen:
    """Go on here, in a new trainer."""
    arguments = {**BASE, **row.arguments, "save_steps": _NEVER, **changes}
    options = {**NET, **row.options, "drive": lambda trainer: trainer.train(resume_from_checkpoint=checkpoint)}
    return run(surestep, arguments, folder=str(folder), **options)


def assert_goes_on(whole: Seen, part: Seen, what: str, tolerance: float = 0.0) -> None:
    """Compare what the resumed run saw with the rest of what the uninterrupted one did."""
    assert 0 < len(part.losses) < len(whole.losses)
    assert_close(whole.losses[-len(part.losses) :], part.losses, tolerance, f"{what}: losses")
    assert part.numbers == whole.numbers[len(whole.numbers) - len(part.numbers) :], f"{what}: order of samples"
    assert_close(whole.weights, part.weights, tolerance, f"{what}: weights")
    assert_close(_moments(whole), _moments(part), tolerance, f"{what}: optimizer")
    assert part.rates == whole.rates, f"{what}: rates"
    assert_same_logs(_of_steps(whole), _of_steps(part), tolerance=tolerance)
    for name in ("global_step", "epoch", "max_steps", "best_global_step", "total_flos"):
        assert getattr(part.state, name) == getattr(whole.state, name), f"{what}: state.{name}"


def _moments(seen: Seen) -> Any:
    """Return the optimizer's state without each weight's size, which the original notes also where nothing reads it."""
    kept = {number: {key: value for key, value in state.items() if key != "RMS"} for number, state in
            seen.optimizer["state"].items()}  # fmt: skip
    return {**seen.optimizer, "state": kept}


def _of_steps(seen: Seen) -> list[dict[str, Any]]:
    """Return what was logged of steps and evaluations; names in one order, for the state's file sorts them."""
    return [dict(sorted(entry.items())) for entry in seen.logs if "train_loss" not in entry]


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_run_of_the_original_goes_on(row: Row, tmp_path: Path) -> None:
    pytest.importorskip(row.needs)
    whole = begin(tmp_path, row)
    assert row.shows(whole), "the row does not show what it is there for"
    for step in row.steps:
        part = go_on(tmp_path, row, str(tmp_path / f"checkpoint-{step}"))
        assert_goes_on(whole, part, f"{row.name} from {step}", row.tolerance)
