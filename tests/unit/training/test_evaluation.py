"""The evaluation loop: what is weighed, gathered, kept and named."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from surestep.engine.strategies.single import SingleDevice
from surestep.errors import DataError
from surestep.metrics.collect import Collector
from surestep.runtime.world import World
from surestep.training.evaluation import EvaluationPlan, Losses, WeighedLoss, evaluate_batches, loss_weight


class Fired:
    def __init__(self) -> None:
        self.events: list[str] = []

    def fire(self, event: str, **extra: Any) -> None:
        self.events.append(event)


def mean_error(model: Any, inputs: Any, loss_only: bool, ignore_keys: Any) -> tuple[Any, Any, Any]:
    """A prediction step without a model: the prediction is the input, the loss the mean squared error."""
    labels = inputs.get("labels")
    loss = None if labels is None else (inputs["x"] - labels).square().mean()
    return (loss, None, None) if loss_only else (loss, inputs["x"], labels)


ALONE = SingleDevice(World(), torch.device("cpu"))


def plan_of(**settings: Any) -> EvaluationPlan:
    usual = {
        "model": None,
        "prediction_step": mean_error,
        "events": Fired(),
        "loss_only": False,
        "ignore_keys": None,
        "prefix": "eval",
        "compute_metrics": None,
        "preprocess_logits": None,
        "ranks": ALONE,
    }
    return EvaluationPlan(**{**usual, **settings})


X, Y = torch.arange(10.0).square(), torch.arange(10.0)


def batches(size: int, *, labels: bool = True) -> Iterator[dict[str, Any]]:
    for start in range(0, 10, size):
        batch = {"x": X[start : start + size]}
        yield {**batch, "labels": Y[start : start + size]} if labels else batch


EXACT = float((X.double() - Y.double()).square().mean())


@pytest.mark.parametrize("size", [1, 3, 4, 10])
def test_the_loss_does_not_depend_on_the_batch_size(size: int) -> None:
    output = evaluate_batches(plan_of(), batches(size), 10)

    assert output.metrics == {"eval_loss": pytest.approx(EXACT, rel=1e-6)}
    np.testing.assert_array_equal(output.predictions, X.numpy())
    np.testing.assert_array_equal(output.label_ids, Y.numpy())
    assert output.num_samples == 10


def test_the_samples_are_counted_where_the_set_does_not_say() -> None:
    assert evaluate_batches(plan_of(), batches(4), None).num_samples == 10
    assert evaluate_batches(plan_of(), batches(4), 7).num_samples == 7


def test_no_batches_give_nothing() -> None:
    output = evaluate_batches(plan_of(compute_metrics=lambda _: {"never": 1}), iter(()), None)

    assert output == (None, None, {}, 0)


def test_without_labels_there_is_neither_loss_nor_metric() -> None:
    output = evaluate_batches(plan_of(compute_metrics=lambda _: {"never": 1}), batches(4, labels=False), 10)

    assert output.label_ids is None
    assert output.metrics == {}
    assert len(output.predictions) == 10


def test_only_the_loss_is_kept_if_only_it_is_asked_for() -> None:
    output = evaluate_batches(plan_of(loss_only=True), batches(4), 10)

    assert output.predictions is output.label_ids is None
    assert output.metrics["eval_loss"] == pytest.approx(EXACT, rel=1e-6)


def test_every_batch_fires_an_event() -> None:
    fired = Fired()
    evaluate_batches(plan_of(events=fired), batches(4), 10)

    assert fired.events == ["on_prediction_step"] * 3


def test_figures_are_named_after_the_prefix_and_become_numbers() -> None:
    def metrics(_: Any) -> dict[str, Any]:
        return {"f1": np.float32(0.5), "test_acc": torch.tensor([0.25]), "nested": {"a": np.int64(3)}}

    output = evaluate_batches(plan_of(prefix="test", compute_metrics=metrics, loss_only=False), batches(5), 10)

    assert output.metrics == {
        "test_f1": 0.5,
        "test_acc": 0.25,
        "test_nested": {"a": 3},
        "test_loss": pytest.approx(EXACT, rel=1e-6),
    }
    assert type(output.metrics["test_f1"]) is float


def test_a_metric_function_that_returns_nothing_is_no_error() -> None:
    output = evaluate_batches(plan_of(compute_metrics=lambda _: None), batches(5), 10)

    assert list(output.metrics) == ["eval_loss"]


def test_metrics_see_everything_once() -> None:
    seen: list[Any] = []
    evaluate_batches(plan_of(compute_metrics=lambda given: seen.append(given) or {}), batches(4), 10)

    (given,) = seen
    predictions, labels = given
    np.testing.assert_array_equal(predictions, X.numpy())
    np.testing.assert_array_equal(labels, Y.numpy())
    assert given.inputs is given.losses is None


def test_inputs_and_losses_are_there_where_asked_for() -> None:
    seen: list[Any] = []
    plan = plan_of(
        compute_metrics=lambda given: seen.append(given) or {}, include=frozenset({"inputs", "loss"}), main_input="x"
    )
    evaluate_batches(plan, batches(4), 10)

    (given,) = seen
    assert len(given.elements) == 4
    np.testing.assert_array_equal(given.inputs, X.numpy())
    # The loss of a batch stands for each of its samples.
    expected = [float((X - Y)[start : start + 4].square().mean()) for start in (0, 4, 8)]
    np.testing.assert_allclose(given.losses, np.repeat(expected, [4, 4, 2]), rtol=1e-6)


def test_batch_metrics_are_told_which_batch_is_the_last() -> None:
    seen: list[Any] = []

    def metrics(given: Any, compute_result: bool) -> dict[str, Any]:
        seen.append((len(given.predictions), compute_result))
        return {"count": sum(count for count, _ in seen)} if compute_result else {}

    output = evaluate_batches(plan_of(compute_metrics=metrics, batch_metrics=True, collect=False), batches(4), 10)

    assert seen == [(4, False), (4, False), (2, True)]
    assert output.metrics["eval_count"] == 10
    # Nothing is kept: that is what batch metrics are for.
    assert output.predictions is output.label_ids is None


def test_batch_metrics_and_outputs_may_both_be_wanted() -> None:
    plan = plan_of(compute_metrics=lambda given, compute_result: {}, batch_metrics=True)

    assert len(evaluate_batches(plan, batches(4), 10).predictions) == 10


def test_batch_metrics_without_labels_are_not_called() -> None:
    plan = plan_of(compute_metrics=lambda *_, **__: 1 / 0, batch_metrics=True)

    assert evaluate_batches(plan, batches(4, labels=False), 10).metrics == {}


def test_batches_may_stay_apart() -> None:
    output = evaluate_batches(plan_of(concatenate=False), batches(4), 10)

    assert [len(batch) for batch in output.predictions] == [4, 4, 2]
    assert [len(batch) for batch in output.label_ids] == [4, 4, 2]


@pytest.mark.parametrize("every", [1, 2, 100])
def test_moving_to_the_host_in_between_changes_nothing(every: int) -> None:
    output = evaluate_batches(plan_of(offload_every=every), batches(3), 10)

    np.testing.assert_array_equal(output.predictions, X.numpy())


@pytest.mark.parametrize(("every", "moves"), [(None, []), (1, [1, 2, 3, 4]), (2, [2, 4]), (3, [3]), (5, [])])
def test_what_is_kept_moves_to_the_host_after_every_so_many_batches(
    every: int | None, moves: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fired, moved = Fired(), []
    monkeypatch.setattr(Collector, "offload", lambda collector: moved.append(len(fired.events)))
    evaluate_batches(plan_of(offload_every=every, events=fired), batches(3), 10)

    # Logits, labels, inputs and losses move together, and what is left at the end.
    assert moved == [batch for batch in [*moves, 4] for _ in range(4)]


def test_batches_that_tell_no_size_count_as_nothing() -> None:
    plan = plan_of(prediction_step=lambda *_: (None, None, None))

    assert evaluate_batches(plan, [{"text": "a"}, {"text": "b"}], None).num_samples == 0


def test_logits_are_preprocessed_with_their_labels_before_they_are_gathered() -> None:
    order: list[Any] = []

    def preprocess(logits: Any, labels: Any) -> Any:
        order.append(("preprocess", labels is not None))
        return logits * 2

    class Ranks(SingleDevice):
        def gather(self, value: Any, *, padding: int = -100) -> Any:
            order.append("gather")
            return value

    plan = plan_of(preprocess_logits=preprocess, ranks=Ranks(World(), torch.device("cpu")))
    output = evaluate_batches(plan, batches(10), 10)

    np.testing.assert_array_equal(output.predictions, 2 * X.numpy())
    assert order[0] == ("preprocess", True)


def test_ragged_batches_are_padded_on_the_right() -> None:
    def step(model: Any, inputs: Any, *_: Any) -> tuple[Any, Any, Any]:
        return None, torch.ones(2, inputs["width"]), torch.ones(2, inputs["width"], dtype=torch.long)

    given = [{"width": width, "x": torch.zeros(2)} for width in (2, 4, 3)]
    output = evaluate_batches(plan_of(prediction_step=step), given, None)

    assert output.predictions.shape == (6, 4)
    assert (output.predictions == -100).sum() == 2 * (2 + 0 + 1)
    assert output.label_ids[0].tolist() == [1, 1, -100, -100]


# Weights


def answers(starts: list[Any], ends: list[Any]) -> dict[str, Any]:
    read = torch.zeros(len(starts), 4, dtype=torch.int64)
    return {"input_ids": read, "start_positions": torch.tensor(starts), "end_positions": torch.tensor(ends)}


@pytest.mark.parametrize(
    ("inputs", "shifted", "weight"),
    [
        ({"labels": torch.tensor([1, 2, -100])}, False, 2),
        ({"labels": torch.tensor([[1, -100, 2], [3, 4, -100]])}, False, 4),
        # After the shift the first label of each row is nobody's target.
        ({"labels": torch.tensor([[1, -100, 2], [3, 4, -100]])}, True, 2),
        ({"labels": torch.tensor([1, 2, 3])}, True, 3),
        # What a collator has shifted is counted as it is.
        ({"labels": torch.tensor([[1, 2, 3]]), "shift_labels": torch.tensor([[2, 3, -100]])}, True, 2),
        ({"shift_labels": torch.tensor([[2, 3, -100]])}, True, 2),
        ({"labels": torch.tensor([1.0, 2.0])}, False, None),
        ({"labels": torch.tensor([[True, False]])}, False, None),
        ({"labels": [1, 2]}, False, None),
        ({"x": torch.zeros(2)}, False, None),
        # Answers of a text of 4 tokens; what lies beyond was cut off.
        (answers([0, 3, 4], [1, 3, 9]), False, 2),
        # As the loss has it, which takes what is negative for the first token.
        (answers([[0], [-1]], [[1], [-100]]), False, 2),
        (answers([0, 3, 3], [1, 3, 9]), False, 2.5),
        ({**answers([0], [1]), "end_positions": torch.tensor([1.0])}, False, None),
        ({**answers([0], [1]), "end_positions": None}, False, None),
        ({**answers([0], [1]), "input_ids": None}, False, None),
        ([torch.zeros(2)], False, None),
    ],
    ids=[
        "classes",
        "tokens",
        "shifted",
        "one a row",
        "collated",
        "collated alone",
        "regression",
        "bool",
        "list",
        "none",
        "answers",
        "answers in a column",
        "answers cut in two",
        "amounts for answers",
        "starts alone",
        "no text",
        "no mapping",
    ],
)
def test_the_weight_of_a_loss_is_what_it_is_a_mean_over(inputs: Any, shifted: bool, weight: float | None) -> None:
    assert loss_weight(inputs, shifted=shifted) == weight


def test_tokens_weigh_and_not_batches() -> None:
    tokens = [torch.tensor([[5, 6, 7, 8]]), torch.tensor([[5, -100, -100, -100], [6, -100, -100, -100]])]
    means = [1.0, 4.0]
    step = iter(means)
    plan = plan_of(prediction_step=lambda *_: (torch.tensor(next(step)), None, None))
    output = evaluate_batches(plan, [{"labels": labels} for labels in tokens], None)

    assert output.metrics["eval_loss"] == pytest.approx((4 * 1.0 + 2 * 4.0) / 6)


def weighed(*pairs: tuple[float, float]) -> WeighedLoss:
    loss = WeighedLoss()
    for value, weight in pairs:
        loss.add(torch.tensor(value), weight)
    return loss


def test_a_mean_in_float64_over_float32_losses() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(500, generator=generator)
    weights = torch.randint(1, 100, (500,), generator=generator)
    loss = weighed(*zip(values.tolist(), weights.tolist(), strict=True))

    exact = math.fsum(value * weight for value, weight in zip(values.tolist(), weights.tolist(), strict=True))
    assert loss.mean(ALONE, hide_nonfinite=False) == pytest.approx(exact / int(weights.sum()), rel=1e-12)


def test_a_loss_by_sample_counts_with_its_mean() -> None:
    losses = Losses()
    mean = losses.add(torch.tensor([1.0, 3.0], requires_grad=True), 2)

    assert losses.figures(ALONE, hide_nonfinite=False) == {"loss": 2.0}
    assert mean == 2.0
    assert not mean.requires_grad


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_shows_unless_it_is_hidden(bad: float) -> None:
    loss = weighed((1.0, 2), (bad, 5), (4.0, 1))

    assert not math.isfinite(loss.mean(ALONE, hide_nonfinite=False))
    assert loss.mean(ALONE, hide_nonfinite=True) == 2.0
    assert not math.isfinite(weighed((bad, 1)).mean(ALONE, hide_nonfinite=True))


def test_nothing_is_hidden_unless_it_is_asked_for() -> None:
    given = [{"x": torch.tensor([value]), "labels": torch.zeros(1)} for value in (math.nan, 2.0)]

    assert math.isnan(evaluate_batches(plan_of(), given, 2).metrics["eval_loss"])
    assert evaluate_batches(plan_of(hide_nonfinite=True), given, 2).metrics["eval_loss"] == 4.0


def test_a_batch_without_an_item_does_not_count() -> None:
    # The mean over no label is NaN; it stands for nothing.
    assert weighed((2.0, 3), (math.nan, 0)).mean(ALONE, hide_nonfinite=False) == 2.0
    assert math.isnan(weighed((math.nan, 0)).mean(ALONE, hide_nonfinite=False))
    assert WeighedLoss().mean(ALONE, hide_nonfinite=False) is None


def test_losses_stay_on_the_device_until_the_mean_is_asked_for() -> None:
    loss = WeighedLoss()
    # A tensor without values: reading it would raise.
    loss.add(torch.zeros((), device="meta"), 3)

    assert loss.sums.device.type == "meta"


def test_a_step_that_gives_no_loss_adds_none() -> None:
    given = SimpleNamespace(values=iter([torch.tensor(2.0), None]))
    plan = plan_of(prediction_step=lambda *_: (next(given.values), None, None))
    output = evaluate_batches(plan, batches(5), 10)

    assert output.metrics == {"eval_loss": 2.0}


@pytest.mark.parametrize(("returned", "kind"), [(0.5, "float"), ([0.5], "list")])
def test_a_metric_function_that_returns_no_figures_by_name(returned: Any, kind: str) -> None:
    with pytest.raises(DataError, match=rf"compute_metrics returned a {kind}\. Return a dict of figures by name"):
        evaluate_batches(plan_of(compute_metrics=lambda _: returned), batches(2), 6)
