"""Settings drawn at random, ten and more at a time: runs of twenty steps are those of the original, bit for bit."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.parity.harness import assert_same, both
from tests.parity.models import Net, Points

STEPS = 20
SIZE = 50

ONE_BY_ONE = st.fixed_dictionaries(
    {
        "per_device_train_batch_size": st.integers(1, 9),
        "gradient_accumulation_steps": st.integers(1, 4),
        "learning_rate": st.sampled_from([1e-4, 1e-3, 1e-2]),
        "weight_decay": st.sampled_from([0.0, 0.01, 0.3]),
        "max_grad_norm": st.sampled_from([0.0, 0.1, 1.0, 50.0]),
        "warmup_steps": st.sampled_from([0, 1, 7, 0.25, 30]),
        "dataloader_drop_last": st.booleans(),
        "seed": st.sampled_from([42, 7]),
        "data_seed": st.sampled_from([None, 3]),
        "train_sampling_strategy": st.sampled_from(["random", "sequential"]),
    }
)
# Settings that go together are drawn together.
OPTIMIZERS = [
    {"optim": "adamw_torch", "adam_beta1": 0.8, "adam_epsilon": 1e-6},
    {"optim": "adamw_torch_fused", "adam_beta2": 0.9},
    {"optim": "sgd"},
    {"optim": "sgd", "optim_args": "momentum=0.9,nesterov=True"},
    {"optim": "adagrad"},
    {"optim": "rmsprop", "optim_args": "momentum=0.5"},
]
SCHEDULES = [
    {"lr_scheduler_type": "linear"},
    {"lr_scheduler_type": "cosine"},
    {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 2}},
    {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2.0, "lr_end": 1e-6}},
    {"lr_scheduler_type": "constant"},
    {"lr_scheduler_type": "constant_with_warmup"},
    {"lr_scheduler_type": "inverse_sqrt"},
    {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
]
LOGS = [
    {"logging_steps": 1},
    {"logging_steps": 3, "logging_first_step": True},
    {"logging_steps": 0.2},
    {"logging_strategy": "epoch"},
    {"logging_strategy": "no"},
]
EVALUATIONS = [
    {"eval_strategy": "no"},
    {"eval_strategy": "steps", "eval_steps": 4, "per_device_eval_batch_size": 7},
    {"eval_strategy": "steps", "eval_steps": 0.3, "eval_delay": 5},
    {"eval_strategy": "epoch", "eval_on_start": True},
]


@st.composite
def arguments(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the arguments of a run of about twenty steps, told in steps or in epochs."""
    chosen: dict[str, Any] = draw(ONE_BY_ONE)
    for together in (OPTIMIZERS, SCHEDULES, LOGS, EVALUATIONS):
        chosen |= draw(st.sampled_from(together))
    if draw(st.booleans()):
        return {**chosen, "max_steps": STEPS}
    samples = STEPS * chosen["per_device_train_batch_size"] * chosen["gradient_accumulation_steps"]
    return {**chosen, "num_train_epochs": round(samples / SIZE, 2)}


def compare(chosen: dict[str, Any], dropout: float) -> None:
    options = {"model": partial(Net, dropout), "train": partial(Points, SIZE), "evaluate": partial(Points, 20, seed=1)}
    theirs, ours = both(chosen, **options)
    assert theirs.state.global_step > 0
    assert_same(theirs, ours)


DROPOUTS = st.sampled_from([0.0, 0.1, 0.5])
USUAL = settings(database=None, suppress_health_check=list(HealthCheck))


@settings(USUAL, max_examples=12, derandomize=True, phases=[Phase.generate])
@given(arguments(), DROPOUTS)
def test_a_dozen_draws_equal_the_originals(chosen: dict[str, Any], dropout: float) -> None:
    compare(chosen, dropout)


@pytest.mark.soak
@settings(USUAL, max_examples=500)
@given(arguments(), DROPOUTS)
def test_five_hundred_draws_equal_the_originals(chosen: dict[str, Any], dropout: float) -> None:
    compare(chosen, dropout)
