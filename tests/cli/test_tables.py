"""Results and plans on the console."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, RenderableType

from surestep.cli.console import output
from surestep.cli.tables import results_view
from surestep.tasks.classification import precision_recall_f1


def _print(shown: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=200, highlight=False, markup=False)
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _results(labels: list[str], confusion: list[list[int]], split: str = "test", **changes: Any) -> dict[str, Any]:
    precision, recall, f1 = precision_recall_f1(np.array(confusion))
    per_class = {label: {"precision": precision[i], "recall": recall[i], "f1": f1[i]} for i, label in enumerate(labels)}
    score = {
        "per_class": per_class,
        "samples": sum(map(sum, confusion)),
        "metrics": {"accuracy": 0.5},
        "confusion": confusion,
    }
    return {
        "name": "pets",
        "labels": labels,
        "scores": {split: score},
        "steps": 1200,
        "epochs": 2.5,
        "train_seconds": 3.21,
        "resumed_from_step": 0,
        "best_checkpoint": None,
        **changes,
    }


def _show(results: dict[str, Any]) -> list[str]:
    shown = _print(results_view(results, Path("runs/pets"), files=["model/"]))
    return [" ".join(line.split()) for line in shown.splitlines()]


def test_a_confusion_table_has_true_classes_as_rows() -> None:
    lines = _show(_results(["cat", "dog"], [[3, 1], [0, 4]]))
    assert "test samples: true class (rows), predicted class (columns)" in lines
    assert "cat 3 1 1.000 0.750 0.857" in lines
    assert "dog · 4 0.800 1.000 0.889" in lines
    assert "1,200 steps, 2.5 epochs; 3.2 s of training." in lines
    assert lines[-1] == "Written to runs/pets: model/"


def test_ten_classes_and_their_figures_fit_into_80_columns() -> None:
    labels = [str(number) for number in range(10)]
    console = Console(file=io.StringIO(), width=80, highlight=False, markup=False)
    console.print(results_view(_results(labels, (np.eye(10, dtype=int) * 27).tolist()), Path("runs"), files=["model/"]))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert " ".join((*labels, "precision", "recall", "f1")) in " ".join(shown.split())
    assert "…" not in shown


def test_a_class_without_samples_scores_nothing() -> None:
    assert "dog · · 0.000 0.000 0.000" in _show(_results(["cat", "dog"], [[3, 1], [0, 0]]))


def test_where_a_run_went_on_and_its_best_checkpoint_are_told() -> None:
    results = _results(["a", "b"], [[1, 0], [0, 1]], resumed_from_step=1000, best_checkpoint="runs/pets/checkpoint-900")
    shown = "; ".join(["1,200 steps, 2.5 epochs", "3.2 s of training since step 1,000, where it went on"])
    assert f"{shown}; best checkpoint checkpoint-900." in _show(results)


def test_without_a_test_part_the_validation_is_shown_and_without_both_nothing() -> None:
    lines = _show(_results(["a", "b"], [[1, 0], [0, 1]], split="validation"))
    assert "validation samples: true class (rows), predicted class (columns)" in lines
    lines = _show({**_results(["a", "b"], [[1, 0], [0, 1]]), "scores": {}})
    assert not [line for line in lines if "true class" in line]


def test_many_classes_are_shown_by_the_pairs_most_often_confused() -> None:
    labels = [f"class {i}" for i in range(30)]
    confusion = [[5 if i == j else 0 for j in range(30)] for i in range(30)]
    confusion[3][7], confusion[8][2] = 2, 4
    lines = _show(_results(labels, confusion))
    first, second = lines.index("class 8 class 2 4"), lines.index("class 3 class 7 2")
    assert first < second


def test_names_are_printed_as_they_are_written() -> None:
    assert "[bold]cat[/bold] 3 1 1.000 0.750 0.857" in _show(_results(["[bold]cat[/bold]", "dog"], [[3, 1], [0, 4]]))
    assert output()._markup is False
