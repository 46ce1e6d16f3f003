"""Whether a model is the better for more of a metric or for less of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from surestep.config.topics.best import grows_better

# What grows as a model gets better. What falls is named beside `greater_is_better`, which knows no more than a name.
_RISING = (
    "accuracy",
    "acc",
    "f1",
    "precision",
    "recall",
    "specificity",
    "auroc",
    "auc",
    "roc_auc",
    "average_precision",
    "mcc",
    "matthews_correlation",
    "cohen_kappa",
    "r2",
    "pearson",
    "pearsonr",
    "spearman",
    "spearmanr",
    "exact_match",
    "bleu",
    "sacrebleu",
    "chrf",
    "meteor",
    "rouge",
    "rouge1",
    "rouge2",
    "rougel",
    "rougelsum",
    "iou",
    "miou",
    "dice",
    "ndcg",
    "mrr",
)
# What is said of a figure besides its name: how classes were averaged, which end of an interval it is.
_MANNER = re.compile(r"_(micro|macro|weighted|samples|mean|low|high)$")


def direction_of(metric: Any) -> bool | None:
    """Return whether greater is better: True, False, or None where nobody says.

    `metric` is the name of a figure, with or without a prefix such as `eval_`, or an object that says it of itself
    as `higher_is_better`, as those of torchmetrics do. What holds several metrics says nothing unless all agree.
    """
    if isinstance(metric, str):
        return _direction_of_name(metric)
    if hasattr(metric, "higher_is_better"):
        said = metric.higher_is_better
        return None if said is None else bool(said)
    values = getattr(metric, "values", None)
    directions = {direction_of(one) for one in values()} if callable(values) else set()
    return directions.pop() if len(directions) == 1 else None


def direction_among(figure: str, metrics: Mapping[str, Any]) -> bool | None:
    """Return what the metric that gives `figure` says of its direction; None where none of `metrics` does.

    `metrics` are objects by name, and a metric's figures begin with its name. What comes before it, the name of an
    evaluation set, does not matter.
    """
    for name in sorted(metrics, key=len, reverse=True):
        if re.search(rf"(^|_){re.escape(name)}(_|$)", figure):
            return direction_of(metrics[name])
    return None


def _direction_of_name(metric: str) -> bool | None:
    name = metric
    while _MANNER.search(name):
        name = _MANNER.sub("", name)
    if not grows_better(name):
        return False
    name = name.lower()
    known = any(name == word or name.endswith(f"_{word}") for word in _RISING)
    return True if known else None
