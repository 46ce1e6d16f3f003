"""What an evaluation holds, counted in bytes: nothing that grows with the samples, unless somebody asked for arrays."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.evaluation_memory import Model, Sentences
from tests.small import quick
from torch import Tensor

from surestep import Trainer
from surestep.metrics.collect import Collector
from surestep.training.evaluation import WeighedLoss

WIDTH, CLASSES, BATCH = 16, 200, 4
# Of a batch: all logits, and the numbers of the classes chosen beside the labels.
LOGITS, CHOSEN = BATCH * WIDTH * CLASSES * 4, 2 * BATCH * WIDTH * 8
# What Python's own objects may take on the way.
SLACK = 40_000


class Tagger(Model):
    main_input_name = "tokens"


def chosen(logits: Tensor, _: Any) -> Tensor:
    return logits.argmax(-1)


def first(logits: Tensor, _: Any) -> Tensor:
    """A part of the logits, which shares their memory."""
    return logits[:, :1]


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def tagger(folder: Path, samples: int, **given: Any) -> Trainer:
    usual = {"model": Tagger(CLASSES), "per_device_eval_batch_size": BATCH, "eval_dataset": Sentences(samples, WIDTH)}
    return quick(folder, **usual, **given)


# After these batches of an evaluation bytes are counted.
EARLY, LATE = 5, 38


def held(trainer: Trainer) -> tuple[list[int], list[int]]:
    """Return the bytes of the tensors that live after an early and a late batch of an evaluation, and of all else."""
    tensors: list[int] = []
    others: list[int] = []
    steps = count(1)

    class Counts:
        def on_prediction_step(self, *_: Any, **__: Any) -> None:
            if next(steps) not in (EARLY, LATE):
                return
            gc.collect()  # what waits in a cycle is not held
            alive = [one for one in gc.get_objects() if type(one) is Tensor and one.layout is torch.strided]
            storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in alive}
            tensors.append(sum(storages.values()))
            others.append(tracemalloc.get_traced_memory()[0])

    trainer.add_callback(Counts())
    trainer.evaluate()
    return tensors, others


METRICS = ["accuracy", "f1", "mcc"]
KEEPING_NOTHING = [{"metrics": METRICS}, {}, {"metrics": "accuracy", "metrics_confidence": 0.9}]


@pytest.mark.parametrize("given", KEEPING_NOTHING, ids=str)
def test_nothing_is_collected(tmp_path: Path, given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Collector, "add", lambda collector, batch: pytest.fail("collected"))
    tagger(tmp_path, 12, **given).evaluate()


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("given", KEEPING_NOTHING, ids=str)
def test_what_is_held_does_not_grow_with_the_samples(tmp_path: Path, given: Any) -> None:
    tensors, others = held(tagger(tmp_path, 160, **given))

    assert tensors[0] == tensors[1] > 0
    assert others[1] - others[0] < SLACK


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("given", "grows"),
    [
        ({}, LOGITS),
        ({"preprocess_logits_for_metrics": chosen}, CHOSEN),
        ({"preprocess_logits_for_metrics": first}, LOGITS // WIDTH),
        ({"eval_spill_bytes": 0}, 0),
    ],
    ids=["logits", "chosen", "a part", "on disk"],
)
def test_what_is_collected_grows_by_its_own_size(tmp_path: Path, given: Any, grows: int) -> None:
    tensors, others = held(tagger(tmp_path, 160, compute_metrics=lambda _: {}, **given))

    # Nothing is held as a tensor; blocks come by the mebibyte, and hold little that is empty.
    assert tensors[0] == tensors[1] > 0
    assert others[1] - others[0] <= 1.25 * (LATE - EARLY) * grows + 2**20 + SLACK
    if grows == LOGITS:
        assert others[1] - others[0] >= 2**20


def test_what_is_kept_of_the_batches_lies_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    result = Collector.result

    def watched(collector: Collector, order: Any = None) -> Any:
        kept.extend(part for column in collector._columns for part in column._parts)
        return result(collector, order)

    monkeypatch.setattr(Collector, "result", watched)
    trainer = tagger(tmp_path, 160, compute_metrics=lambda _: {}, preprocess_logits_for_metrics=chosen)
    trainer.evaluate()

    assert len(kept) == 2 * 40
    assert len({id(part.base) for part in kept}) == 2


def test_a_metric_function_gets_its_arrays_from_disk_past_the_limit(tmp_path: Path) -> None:
    seen: list[Any] = []

    def note(given: Any) -> dict[str, float]:
        seen.append((type(given.predictions), given.predictions.copy()))
        return {"right": float((given.predictions.argmax(-1) == given.label_ids).mean())}

    near = tagger(tmp_path, 21, compute_metrics=note).evaluate()
    far = tagger(tmp_path, 21, compute_metrics=note, eval_spill_bytes=0).evaluate()

    assert (near["eval_loss"], near["eval_right"]) == (far["eval_loss"], far["eval_right"])
    assert [kind for kind, _ in seen] == [np.ndarray, np.memmap]
    np.testing.assert_array_equal(seen[0][1], seen[1][1])


def test_the_collector_holds_no_more_than_the_limit_and_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0
    add = Collector.add

    def watched(collector: Collector, batch: Any) -> None:
        nonlocal most
        add(collector, batch)
        most = max(most, sum(part.nbytes for column in collector._columns for part in column._parts))

    monkeypatch.setattr(Collector, "add", watched)
    tagger(tmp_path, 80, compute_metrics=lambda _: {}, eval_spill_bytes=3 * LOGITS).evaluate()

    assert LOGITS < most <= 3 * LOGITS


def test_the_loss_keeps_a_number_and_not_one_a_batch() -> None:
    loss = WeighedLoss()
    for _ in range(100):
        loss.add(torch.ones(()), 3)

    assert loss.sums.shape == (2, 4)
