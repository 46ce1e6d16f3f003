"""What can be written as `metrics=`: names, objects of torchmetrics, your own; and what comes of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from surestep.config.nearest import did_you_mean
from surestep.errors import ArgumentError
from surestep.metrics.answers import Squad
from surestep.metrics.auroc import Auroc
from surestep.metrics.bootstrap import Bootstrap
from surestep.metrics.classes import Accuracy, ClassCounts, Figure, Matthews, f1, overlap, precision, recall
from surestep.metrics.spans import SpanF1
from surestep.metrics.streaming import StreamingMetric, StreamingMetrics, SummedMetric
from surestep.metrics.task import Reading
from surestep.metrics.text import Bleu, Rouge
from surestep.metrics.torchmetric import SummedTorchMetric, TorchMetric, is_torchmetric
from surestep.metrics.values import MeanSquaredError, Perplexity

Maker = Callable[[Reading, Bootstrap | None], StreamingMetric]
_CALLS = ("update", "merge", "compute", "reset")
_AVERAGES = ("macro", "micro", "weighted")


def _counted(figure: Figure, name: str, average: str | None = None) -> Maker:
    return lambda reading, bootstrap: ClassCounts(figure, reading, name=name, average=average, bootstrap=bootstrap)


def _summed(kind: Callable[[Bootstrap | None], SummedMetric]) -> Maker:
    return lambda _, bootstrap: kind(bootstrap)


def _averaged(figure: Figure, name: str) -> dict[str, Maker]:
    """Return the makers of a figure of classes: by itself, and with an average in its name."""
    named = {f"{name}_{average}": _counted(figure, f"{name}_{average}", average) for average in _AVERAGES}
    return {name: _counted(figure, name), **named}


NAMES: dict[str, Maker] = {
    "accuracy": _summed(Accuracy),
    **_averaged(f1, "f1"),
    **_averaged(precision, "precision"),
    **_averaged(recall, "recall"),
    "auroc": Auroc,
    "mcc": lambda reading, bootstrap: Matthews(reading, bootstrap=bootstrap),
    "mse": _summed(MeanSquaredError),
    "perplexity": _summed(Perplexity),
    "rouge": _summed(Rouge),
    "bleu": _summed(Bleu),
    "seqeval": _summed(lambda bootstrap: SpanF1(bootstrap=bootstrap)),
    "iou": _counted(overlap, "iou", "macro"),
    "squad": _summed(Squad),
}


def check_metrics(asked: Any, setting: str = "metrics") -> None:
    """Raise for what cannot be measured, before any work."""
    for _ in _makers(asked, setting):
        pass


def make_metrics(asked: Any, reading: Reading, bootstrap: Bootstrap | None = None) -> StreamingMetrics:
    """Return the metrics that `metrics=` asks for: a name or an object, a list of these, or a dict by name."""
    return StreamingMetrics({name: make(reading, bootstrap) for name, make in _makers(asked, "metrics")}, reading)


def _makers(asked: Any, setting: str) -> Iterator[tuple[str, Maker]]:
    known: set[str] = set()
    for name, metric in _pairs(asked, setting):
        if name in known:
            raise ArgumentError(
                f"{setting} has '{name}' twice. Name the metrics in a dict: {setting}={{'{name}': ...}}."
            )
        known.add(name)
        yield name, _maker(metric, setting)


def _is_collection(value: Any) -> bool:
    return is_torchmetric(value) and hasattr(value, "items")


def _pairs(asked: Any, setting: str) -> Iterator[tuple[str, Any]]:
    """Yield names and metrics; a collection of torchmetrics gives its own."""
    if _is_collection(asked):
        # Apart from each other, so that each has its own figures; the names are the collection's.
        yield from asked.items(keep_base=False)
    elif isinstance(asked, Mapping):
        for name, metric in asked.items():
            yield from _pairs(metric, setting) if _is_collection(metric) else [(name, metric)]
    elif isinstance(asked, str) or not isinstance(asked, Iterable):
        yield _name_of(asked), asked
    else:
        for metric in asked:
            yield from _pairs(metric, setting)


def _name_of(metric: Any) -> str:
    if isinstance(metric, str):
        return metric
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(metric).__name__).lower()


def _maker(metric: Any, setting: str) -> Maker:
    if isinstance(metric, str):
        if metric not in NAMES:
            raise ArgumentError(
                f"{setting} has '{metric}', which is no name of a metric.{did_you_mean(metric, NAMES)} Write one of "
                f"{', '.join(NAMES)}, or pass an object of torchmetrics."
            )
        return NAMES[metric]
    if is_torchmetric(metric):
        return partial(_torch, metric)
    if not isinstance(metric, type) and all(callable(getattr(metric, call, None)) for call in _CALLS):
        return partial(_own, metric)
    raise ArgumentError(
        f"{setting} has {metric!r}, which is no metric. Write a name ({', '.join(NAMES)}), or pass an object of "
        f"torchmetrics, or one with the methods {', '.join(_CALLS)}."
    )


def _torch(metric: Any, reading: Reading, bootstrap: Bootstrap | None) -> StreamingMetric:
    del reading
    return TorchMetric(metric) if bootstrap is None else SummedTorchMetric(metric, bootstrap)


def _own(metric: Any, reading: Reading, bootstrap: Bootstrap | None) -> StreamingMetric:
    """Return a user's metric, with the bootstrap where it is one of sums."""
    del reading
    if isinstance(metric, SummedMetric):
        metric.bootstrap = bootstrap
    elif bootstrap is not None:
        raise ArgumentError(
            f"metrics_confidence needs a metric of sums, and {type(metric).__name__} is none. Derive it from "
            "SummedMetric, or leave metrics_confidence out."
        )
    metric.reset()
    return metric  # type: ignore[no-any-return]
