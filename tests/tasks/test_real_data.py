"""Jobs on real data sets that lie next to the repository; skipped where they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from surestep.jobs.job import make_job
from surestep.jobs.run import Request, run_job

DATA = Path(__file__).parents[3] / "shared" / "data"


def _run(folder: str, output: Path, warnings: list[str], **declared: Any) -> dict[str, Any]:
    base = DATA / folder
    if not base.is_dir():
        pytest.skip(f"{base} is absent: this test needs the shared data next to the repository")
    job = make_job({"output_dir": str(output), **declared}, folder)
    return run_job(Request(job, base, lambda text: None, warnings.append)).results


def test_short_messages_are_told_from_advertisement(tmp_path: Path) -> None:
    warnings: list[str] = []
    found = _run(
        "sms_spam",
        tmp_path / "run",
        warnings,
        task={"name": "text_classification", "max_length": 48, "min_count": 2},
        data={"source": "train.parquet", "test": "validation.parquet", "label_names": ["ham", "spam"]},
        model={"name": "text_encoder", "dim": 32, "num_layers": 1},
        metrics=["accuracy", "macro_f1", "matthews_correlation"],
        arguments={
            "num_train_epochs": 3,
            "per_device_train_batch_size": 32,
            "per_device_eval_batch_size": 256,
            "learning_rate": 3e-3,
            "disable_tqdm": True,
        },
    )
    scores = found["scores"]["test"]
    assert found["labels"] == ["ham", "spam"]
    assert scores["samples"] == 700
    # Always guessing ham is right in about 87 % of the rows.
    assert scores["metrics"]["accuracy"] > 0.96
    assert scores["metrics"]["macro_f1"] > 0.9
    assert not [warning for warning in warnings if "also in the training data" in warning]


def test_blood_cells_are_told_apart(tmp_path: Path) -> None:
    found = _run(
        "bccd_cells",
        tmp_path / "run",
        [],
        task={"name": "image_classification", "image_size": 16},
        data={"source": "train.parquet", "test": "validation.parquet", "label_names": ["RBC", "WBC", "Platelets"]},
        model={"name": "residual_network", "width": 8},
        arguments={
            "num_train_epochs": 3,
            "per_device_train_batch_size": 32,
            "per_device_eval_batch_size": 256,
            "learning_rate": 1e-2,
            "disable_tqdm": True,
        },
    )
    scores = found["scores"]["test"]
    assert scores["samples"] == 1137
    # The largest class alone is about 85 %.
    assert scores["metrics"]["accuracy"] > 0.93
    assert scores["metrics"]["macro_f1"] > 0.85
