"""How long a run goes on and how batches group into steps: as in the original, bit for bit."""

from __future__ import annotations

from tests.parity.harness import Case, as_parameters, check
from tests.parity.models import Points

BASE = {"per_device_train_batch_size": 4, "logging_steps": 1}

CASES = [
    Case("plain", {"num_train_epochs": 2, "logging_steps": 3}),
    Case("defaults for the batch and the log", {"num_train_epochs": 1}),
    Case(
        "accumulation with a ragged tail",
        {**BASE, "num_train_epochs": 2, "gradient_accumulation_steps": 3},
        shows=lambda seen: seen.state.global_step == 10 and len(seen.losses) == 26,
    ),
    Case(
        "accumulation longer than the epoch",
        {**BASE, "num_train_epochs": 2, "gradient_accumulation_steps": 20},
        shows=lambda seen: seen.state.global_step == 2 and len(seen.losses) == 26,
    ),
    Case(
        "max_steps below an epoch",
        {**BASE, "max_steps": 5},
        shows=lambda seen: seen.state.epoch < 1,
    ),
    Case(
        "max_steps over several epochs, not a multiple",
        {**BASE, "max_steps": 31},
        shows=lambda seen: 2 < seen.state.epoch < 3,
    ),
    Case(
        "max_steps of exactly two epochs",
        {**BASE, "max_steps": 26},
        shows=lambda seen: seen.state.epoch == 2,
    ),
    Case(
        "max_steps with accumulation over a ragged tail",
        {**BASE, "max_steps": 7, "gradient_accumulation_steps": 3},
        shows=lambda seen: 1 < seen.state.epoch < 2,
    ),
    Case(
        "half an epoch",
        {**BASE, "num_train_epochs": 0.5},
        shows=lambda seen: seen.state.global_step == 7,
    ),
    Case(
        "two epochs and a third",
        {**BASE, "num_train_epochs": 2.33, "gradient_accumulation_steps": 2},
        shows=lambda seen: 2 < seen.state.epoch < 3,
    ),
    Case(
        "drop_last",
        {**BASE, "num_train_epochs": 2, "dataloader_drop_last": True},
        shows=lambda seen: len(seen.losses) == 24,
    ),
    Case(
        "drop_last with accumulation",
        {**BASE, "num_train_epochs": 2, "dataloader_drop_last": True, "gradient_accumulation_steps": 5},
        shows=lambda seen: len(seen.losses) == 24,
    ),
    Case("a batch larger than the set", {"per_device_train_batch_size": 64, "num_train_epochs": 3, "logging_steps": 1}),
    Case("a single sample", {"num_train_epochs": 2, "logging_steps": 1}, {"train": lambda: Points(1)}),
]


@as_parameters(CASES)
def test_length_equals_the_originals(case: Case) -> None:
    check(case)
