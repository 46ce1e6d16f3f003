"""What an evaluation says of samples that did not come, how figures are merged, and the last bit of a loss."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.training.test_evaluation import ALONE, Fired, X, Y, batches, mean_error, plan_of

from surestep.errors import DataError, ModelError
from surestep.logs import warn_once
from surestep.losses.pair import LossSum
from surestep.metrics.collect import PADDING, Collector
from surestep.training.evaluation import EvaluationPlan, Losses, Round, WeighedLoss, evaluate_batches


def test_what_a_plan_does_unless_it_is_told() -> None:
    plan = plan_of()
    given = ("model", "prediction_step", "events", "loss_only", "ignore_keys", "prefix", "compute_metrics")
    left = {one.name: getattr(plan, one.name) for one in fields(EvaluationPlan) if one.name not in given}

    assert not left.pop("shift").shifted
    assert left == {
        "preprocess_logits": None,
        "ranks": ALONE,
        "main_input": "input_ids",
        "include": frozenset(),
        "batch_metrics": False,
        "concatenate": True,
        "offload_every": None,
        "hide_nonfinite": False,
        "collect": True,
        "padding": PADDING,
        "ignored_label": -100,
        "metrics": None,
        "spill_bytes": None,
        "order": None,
        "dataset_size": None,
        "reads_all": False,
        "objects": False,
        "stopping": None,
        "shards": None,
    }


def test_a_round_has_no_other_attribute() -> None:
    turn: Any = Round(None, [0], is_last=True)

    assert turn.stopping == 0
    with pytest.raises(AttributeError):
        turn.last = True


# Counts


def said(caplog: pytest.LogCaptureFixture, rows: list[int], size: int | None, **settings: Any) -> str:
    """Evaluate batches of so many rows of a set of `size` samples; return what was said."""
    warn_once.cache_clear()
    caplog.clear()
    given = [{"x": torch.ones(count), "labels": torch.zeros(count)} for count in rows]
    output = evaluate_batches(plan_of(dataset_size=size, **settings), given, None)
    assert output.num_samples == sum(rows)
    return caplog.text


@pytest.mark.parametrize("reads_all", [True, False])
@pytest.mark.parametrize(("rows", "size"), [([4, 4, 2], 10), ([1, 1], 2), ([3], None), ([], 0)])
def test_a_set_that_came_as_a_whole_is_no_news(
    rows: list[int], size: int | None, reads_all: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert said(caplog, rows, size, reads_all=reads_all) == ""


@pytest.mark.parametrize("rows", [[4, 4], [1, 1], []])
def test_samples_that_are_left_out_on_purpose_are_told(rows: list[int], caplog: pytest.LogCaptureFixture) -> None:
    text = said(caplog, rows, 10)

    assert f"covers {sum(rows)} of the 10 samples of its set: dataloader_drop_last=True" in text


@pytest.mark.parametrize("rows", [[4, 4], [4, 4, 1], [1, 2], [2, 1]])
def test_samples_that_are_lost_are_an_error(rows: list[int], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DataError, match=f"has 10 samples, and {sum(rows)} rows came to the model"):
        said(caplog, rows, 10, reads_all=True)


@pytest.mark.parametrize(
    ("rows", "reads_all"), [([1, 1, 1], True), ([6, 6], True), ([6, 6], False), ([1] * 11, True), ([1] * 11, False)]
)
def test_rows_that_are_no_samples_are_told(rows: list[int], reads_all: bool, caplog: pytest.LogCaptureFixture) -> None:
    # A row a batch is what packing yields; more rows than samples are made by a collator that cuts.
    text = said(caplog, rows, 10, reads_all=reads_all)

    assert f"has 10 samples, and batches have {sum(rows)} rows in all" in text


def test_an_order_of_fewer_samples_leaves_the_outputs_as_they_came() -> None:
    output = evaluate_batches(plan_of(order=np.array([1, 0])), batches(3), None)

    np.testing.assert_array_equal(output.predictions, X.numpy())


def test_an_order_sorts_what_came_of_it() -> None:
    order = np.array([9, 7, 5, 3, 1, 0, 2, 4, 6, 8])
    output = evaluate_batches(plan_of(order=order, include=frozenset({"loss"})), batches(3), None)

    np.testing.assert_array_equal(output.predictions, X.numpy()[order.argsort()])
    np.testing.assert_array_equal(output.label_ids, Y.numpy()[order.argsort()])


# Figures


class Counting:
    """Streaming metrics that give what they are told."""

    def __init__(self, figures: dict[str, float]) -> None:
        self.figures = figures
        self.calls: list[tuple[bool, ...]] = []

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *_: Any) -> None:
        return None

    def update(self, *given: Any) -> None:
        self.calls.append(tuple(one is not None for one in given))

    def compute(self, ranks: Any) -> dict[str, float]:
        assert ranks is ALONE
        return self.figures


@pytest.mark.parametrize("figures", [{"mine": 3.0, "both": 4.0}, None])
def test_figures_of_metrics_and_of_the_function_come_together(figures: dict[str, float] | None) -> None:
    metrics = Counting({"theirs": 1.0, "both": 2.0})
    output = evaluate_batches(plan_of(metrics=metrics, compute_metrics=lambda _: figures), batches(5), 10)
    expected = {"theirs": 1.0, "both": 2.0} | (figures or {})

    assert {name: value for name, value in output.metrics.items() if name != "eval_loss"} == {
        f"eval_{name}": value for name, value in expected.items()
    }


def test_metrics_see_outputs_although_only_the_loss_is_kept() -> None:
    metrics = Counting({"theirs": 1.0})
    output = evaluate_batches(plan_of(metrics=metrics, loss_only=True), batches(5), 10)

    assert metrics.calls == [(True, True, True, True)] * 2
    assert output.predictions is output.label_ids is None
    assert output.metrics["eval_theirs"] == 1.0


@pytest.mark.parametrize(("metrics", "alone"), [(None, True), (Counting({}), False)], ids=["none", "metrics"])
def test_a_step_is_asked_for_the_loss_alone_where_nobody_sees_more(metrics: Any, alone: bool) -> None:
    asked: list[Any] = []

    def step(model: Any, inputs: Any, loss_only: bool, ignore_keys: Any) -> Any:
        asked.append((model, loss_only, ignore_keys))
        return mean_error(model, inputs, False, None)

    plan = plan_of(prediction_step=step, metrics=metrics, loss_only=True, model="model", ignore_keys=["mems"])
    output = evaluate_batches(plan, batches(10), None)

    assert asked == [("model", alone, ["mems"])]
    # What the step gives besides is not kept.
    assert output.predictions is None


class Shards:
    def __init__(self) -> None:
        self.rows: list[tuple[list[str], list[int]]] = []

    def add(self, outputs: dict[str, Any], positions: Any) -> None:
        self.rows.append((list(outputs), positions.tolist()))


def test_shards_take_every_batch_with_its_numbers() -> None:
    shards = Shards()
    evaluate_batches(plan_of(shards=shards, collect=False), batches(4), None)

    assert shards.rows == [(["predictions", "label_ids"], list(part)) for part in (range(4), range(4, 8), range(8, 10))]


def test_what_has_the_prefix_comes_first_then_losses_then_the_rest() -> None:
    plan = plan_of(compute_metrics=lambda _: {"b": 1, "eval_a": 2, "eval": 3, "eval_loss": 9.0})
    output = evaluate_batches(plan, [{"x": torch.tensor([2.0]), "labels": torch.tensor([0.0])}], None)

    # The loss of the batches stands, whatever the function calls by its name.
    assert list(output.metrics.items()) == [("eval_a", 2), ("eval_loss", 4.0), ("eval_b", 1), ("eval_eval", 3)]


def test_batch_metrics_get_the_whole_inputs_and_the_others_the_main_one() -> None:
    seen: list[Any] = []
    asked = {"include": frozenset({"inputs"}), "main_input": "x"}
    plan = plan_of(compute_metrics=lambda given, **_: seen.append(given.inputs), batch_metrics=True, **asked)
    evaluate_batches(plan, batches(10), None)
    evaluate_batches(plan_of(compute_metrics=lambda given: seen.append(given.inputs), **asked), batches(10), None)

    assert sorted(seen[0]) == ["labels", "x"]
    np.testing.assert_array_equal(seen[1], X.numpy())


def test_what_does_not_fit_in_memory_moves_after_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def moves(spill_bytes: int | None) -> list[int]:
        fired, moved = Fired(), list[int]()
        monkeypatch.setattr(Collector, "offload", lambda collector: moved.append(len(fired.events)))
        evaluate_batches(plan_of(events=fired, spill_bytes=spill_bytes), batches(5), None)
        return moved

    assert set(moves(None)) == {2}
    assert set(moves(1)) == {1, 2}


# Rows of a batch


@pytest.mark.parametrize(
    ("inputs", "rows"),
    [
        ({"other": torch.zeros(2), "x": torch.zeros(3), "labels": torch.zeros(4)}, 4),
        ({"other": torch.zeros(2), "x": torch.zeros(3), "labels": None}, 3),
        ({"other": torch.zeros(2), "x": torch.zeros(3), "labels": torch.zeros(())}, 3),
        ({"other": torch.zeros(2)}, 2),
        ((torch.zeros(5), torch.zeros(6)), 5),
        (torch.zeros(7), 7),
        ({"text": "a"}, 0),
    ],
    ids=["labels", "main input", "labels without rows", "first tensor", "tuple", "tensor", "none"],
)
def test_the_rows_of_a_batch(inputs: Any, rows: int) -> None:
    seen = []
    plan = plan_of(prediction_step=lambda _, batch, *__: seen.append(batch) or (None, None, None), main_input="x")

    assert evaluate_batches(plan, [inputs], None).num_samples == rows
    # A batch that tells no rows is one all the same.
    assert seen == [inputs]


# Losses


def test_batches_without_items_have_the_mean_of_their_losses() -> None:
    # The losses of a model that counts no label: not whole numbers, and not a multiple of their count.
    loss = WeighedLoss()
    for value in (0.25, 1.5):
        loss.add(torch.tensor(value), 0)

    assert loss.mean(ALONE, hide_nonfinite=False) == 0.875
    loss.add(torch.tensor(6.0), torch.tensor(0.5))
    assert loss.mean(ALONE, hide_nonfinite=False) == 6.0


def test_a_weight_on_the_device_counts_as_a_number_does() -> None:
    one, other = WeighedLoss(), WeighedLoss()
    for value, weight in [(0.1, 3), (0.7, 4), (math.nan, 0)]:
        one.add(torch.tensor(value), weight)
        other.add(torch.tensor(value), torch.tensor(weight))

    torch.testing.assert_close(one.sums, other.sums, rtol=0, atol=0, equal_nan=True)
    assert one.sums.dtype == torch.float64
    assert one.mean(ALONE, hide_nonfinite=False) == pytest.approx((0.1 * 3 + 0.7 * 4) / 7, rel=1e-7)


def test_of_hidden_batches_neither_loss_nor_weight_nor_count_is_left() -> None:
    loss = WeighedLoss()
    for value, weight in [(2.0, 0), (math.inf, 0), (-math.inf, 8), (5.0, 0)]:
        loss.add(torch.tensor(value), weight)

    assert loss.sums[1].tolist() == [0.0, 7.0, 0.0, 2.0]
    assert loss.mean(ALONE, hide_nonfinite=True) == 3.5
    assert math.isinf(loss.mean(ALONE, hide_nonfinite=False))


def test_several_losses_have_their_names_and_their_sum() -> None:
    losses = Losses()
    first = losses.add({"main": LossSum(torch.tensor(6.0), 2), "side": torch.tensor(0.5)}, 4)
    second = losses.add({"main": LossSum(torch.tensor(9.0), 4), "side": torch.tensor(2.0)}, 2)
    figures = losses.figures(ALONE, hide_nonfinite=False)

    assert (first.item(), second.item()) == (3.5, 4.25)
    assert figures == {"loss": 2.5 + 1.0, "loss_main": 15 / 6, "loss_side": (4 * 0.5 + 2 * 2.0) / 6}
    with pytest.raises(ModelError, match="empty dict"):
        losses.add({}, 1)


def test_one_loss_is_called_loss_whether_tensor_or_pair() -> None:
    losses = Losses()
    given = torch.tensor([1.0, 3.0], requires_grad=True)
    mean = losses.add(given, 2)
    pair = losses.add(LossSum(torch.tensor(12.0), 6), 100)

    assert (mean.item(), mean.requires_grad, pair.item()) == (2.0, False, 2.0)
    losses.add(torch.tensor(10.0), 2)
    assert losses.figures(ALONE, hide_nonfinite=False) == {"loss": (2 * 2 + 12 + 20) / 10}
    assert Losses().figures(ALONE, hide_nonfinite=False) == {}


def test_a_loss_weighs_its_labels_or_its_samples() -> None:
    values = iter([1.0, 4.0])
    plan = plan_of(prediction_step=lambda *_: (torch.tensor(next(values)), None, None), main_input="x")
    given = [
        {"x": torch.zeros(3), "labels": torch.tensor([1, -100, -100])},
        {"x": torch.zeros(3), "labels": torch.tensor([1, 2, -100])},
    ]
    assert evaluate_batches(plan, given, None).metrics["eval_loss"] == (1 * 1.0 + 2 * 4.0) / 3

    values = iter([1.0, 4.0])
    # Without labels, and where no label counts: over samples, and as a mean of nothing.
    assert evaluate_batches(plan, [{"x": torch.zeros(3)}, {"x": torch.zeros(1)}], None).metrics["eval_loss"] == 1.75


def test_no_file_is_left_of_what_was_moved_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    output = evaluate_batches(plan_of(spill_bytes=1), batches(3), None)

    np.testing.assert_array_equal(output.predictions, X.numpy())
