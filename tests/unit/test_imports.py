"""What importing costs: counted modules, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import pytest

# What a training run may need, and no import may load.
HEAVY = {"transformers", "datasets", "pydantic", "rich", "typer", "yaml", "accelerate", "pandas", "sklearn", "pyarrow"}
TRACKERS = {"tensorboard", "tensorflow", "wandb", "mlflow", "comet_ml", "clearml", "dvclive", "neptune", "trackio"}


@cache
def modules_after(code: str) -> frozenset[str]:
    """Run `code` in a fresh interpreter and return what is loaded."""
    program = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return frozenset(done.stdout.split())


def top_level(modules: frozenset[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_the_package_alone_needs_no_torch() -> None:
    loaded = modules_after("import surestep")

    assert not top_level(loaded) & {"torch", "numpy", *HEAVY, *TRACKERS}
    assert {name for name in loaded if name.startswith("surestep")} == {"surestep"}


def test_trainer_and_arguments_load_little_beside_torch() -> None:
    more = modules_after("from surestep import Trainer, TrainingArguments") - modules_after("import torch")

    assert len(more) <= 145, f"{len(more)} modules more than torch: {sorted(more)}"


@pytest.mark.parametrize(
    "code",
    [
        "from surestep import Trainer, TrainingArguments",
        "from surestep import *",
        "from surestep import Trainer, TrainingArguments\nTrainingArguments('unused')",
    ],
    ids=["trainer", "everything", "arguments made"],
)
def test_no_optional_or_heavy_package_is_loaded(code: str) -> None:
    loaded = top_level(modules_after(code) - modules_after("import torch"))

    assert not loaded & (HEAVY | TRACKERS)


def test_making_arguments_changes_nothing_global() -> None:
    program = """
import logging, os, random, signal, warnings
import numpy as np, torch
import torch.distributed as dist
from surestep import TrainingArguments
def world():
    return (
        dict(os.environ), random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().tolist(),
        torch.get_default_dtype(), torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32,
        torch.are_deterministic_algorithms_enabled(), dist.is_available() and dist.is_initialized(),
        signal.getsignal(signal.SIGTERM), logging.getLogger().level, logging.getLogger().handlers[:],
        warnings.filters[:], os.listdir("."), torch.cuda.is_initialized(),
    )
before = world()
TrainingArguments("made_nowhere", seed=7, full_determinism=True, tf32=None, log_level="debug", bf16=True, use_cpu=True)
after = world()
assert before == after, [(one, other) for one, other in zip(before, after) if one != other]
"""
    subprocess.run([sys.executable, "-c", program], check=True)
