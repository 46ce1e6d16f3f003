"""An evaluation whose batches are spread over ranks gives on each of them what one process gives for all batches."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.training.ranks import ThreadRank, on_ranks
from tests.unit.training.test_evaluation import EXACT, Fired, X, Y, plan_of
from torch import Tensor

from surestep.errors import Interrupted, InterruptedByKeyboard
from surestep.training.evaluation import WeighedLoss, evaluate_batches

# What each rank reads, round by round; the samples of a round come rank after rank.
SHARES = {
    "even": [[[0, 1], [4, 5]], [[2, 3], [6, 7]]],
    "uneven sizes": [[[0], [4, 5]], [[1, 2, 3], [6, 7, 8]]],
    "one has fewer batches": [[[0, 1, 2], [5, 6], [9]], [[3, 4], [7, 8]]],
    "one has none": [[[0, 1], [2, 3, 4]], []],
    "the first has none": [[], [[0, 1], [2, 3, 4]]],
    "three": [[[0, 1], [5, 6]], [[2], [7]], [[3, 4], [8, 9]]],
}


def batches_of(share: list[list[int]]) -> list[dict[str, Tensor]]:
    places = [torch.tensor(batch, dtype=torch.long) for batch in share]
    return [{"x": X[place], "labels": Y[place]} for place in places]


def evaluate(shares: list[list[list[int]]], **settings: Any) -> list[tuple[Any, ThreadRank]]:
    """Return the output of each rank, with the rank."""

    def work(rank: ThreadRank) -> Any:
        own = {name: value(rank) if name == "stopping" else value for name, value in settings.items()}
        plan = plan_of(ranks=rank, events=Fired(), **own)
        return evaluate_batches(plan, batches_of(shares[rank.world.rank]), None), rank, plan

    return on_ranks(len(shares), work)


@pytest.mark.parametrize("shares", SHARES.values(), ids=SHARES)
def test_every_rank_has_the_outputs_and_the_loss_of_all(shares: list[list[list[int]]]) -> None:
    count = sum(len(batch) for share in shares for batch in share)
    exact = float((X.double() - Y.double())[:count].square().mean())

    for output, _, plan in evaluate(shares):
        np.testing.assert_array_equal(output.predictions, X[:count].numpy())
        np.testing.assert_array_equal(output.label_ids, Y[:count].numpy())
        assert output.num_samples == count
        assert output.metrics == {"eval_loss": pytest.approx(exact, rel=1e-6)}
        # A rank without a batch takes part in every round.
        assert plan.events.events == ["on_prediction_step"] * max(map(len, shares))


class Positions:
    """Metrics that keep the numbers of the samples they see, and count them over the ranks."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.closed = False

    def __enter__(self) -> Positions:
        return self

    def __exit__(self, *_: Any) -> None:
        self.closed = True

    def update(self, logits: Any, labels: Any, inputs: Any, positions: Any) -> None:
        assert len(logits) == len(labels) == len(inputs["x"]) == len(positions)
        self.seen.append(positions.tolist())

    def compute(self, ranks: Any) -> dict[str, float]:
        assert not self.closed
        return {"count": sum(ranks.agree(sum(map(len, self.seen))))}


def positions_on_ranks(shares: list[list[list[int]]], order: Any) -> list[list[list[int]]]:
    def work(rank: ThreadRank) -> Any:
        metrics = Positions()
        plan = plan_of(ranks=rank, metrics=metrics, order=order, collect=False)
        output = evaluate_batches(plan, batches_of(shares[rank.world.rank]), None)
        assert output.metrics["eval_count"] == sum(len(batch) for share in shares for batch in share)
        assert metrics.closed
        return metrics.seen

    return on_ranks(len(shares), work)


@pytest.mark.parametrize("shares", SHARES.values(), ids=SHARES)
def test_each_rank_knows_the_numbers_of_its_samples(shares: list[list[list[int]]]) -> None:
    assert positions_on_ranks(shares, None) == shares


@pytest.mark.parametrize("shares", SHARES.values(), ids=SHARES)
def test_an_order_names_the_samples_as_they_are_read(shares: list[list[list[int]]]) -> None:
    # Exactly as many as are read: the last one has its number there as well.
    count = sum(len(batch) for share in shares for batch in share)
    order = np.random.default_rng(0).permutation(count)

    expected = [[order[batch].tolist() for batch in share] for share in shares]
    assert positions_on_ranks(shares, order) == expected


def test_an_order_that_ends_too_soon_names_none_of_the_batch() -> None:
    order = np.array([4, 3, 2, 1, 0])

    assert positions_on_ranks([[[0, 1], [4, 5]], [[2, 3], [6, 7]]], order) == [[[4, 3], [4, 5]], [[2, 1], [6, 7]]]


@pytest.mark.parametrize(("size", "sorts"), [(8, True), (10, True), (7, False)])
def test_outputs_come_in_the_order_of_the_dataset(size: int, sorts: bool) -> None:
    order = np.random.default_rng(1).permutation(size)
    expected = X[:8].numpy()[order[:8].argsort()] if sorts else X[:8].numpy()

    for output, *_ in evaluate(SHARES["even"], order=order):
        np.testing.assert_array_equal(output.predictions, expected)


def test_the_last_round_is_that_after_which_no_rank_has_a_batch() -> None:
    def calls(shares: list[list[list[int]]]) -> list[list[tuple[int, bool]]]:
        def work(rank: ThreadRank) -> Any:
            seen: list[tuple[int, bool]] = []

            def metrics(given: Any, compute_result: bool) -> dict[str, float]:
                seen.append((len(given.predictions), compute_result))
                return {"rounds": len(seen)}

            plan = plan_of(ranks=rank, compute_metrics=metrics, batch_metrics=True, collect=False)
            output = evaluate_batches(plan, batches_of(shares[rank.world.rank]), None)
            assert output.metrics["eval_rounds"] == len(seen)
            assert output.predictions is None
            return seen

        return on_ranks(len(shares), work)

    assert calls(SHARES["one has fewer batches"]) == [[(5, False), (4, False), (1, True)]] * 2
    assert calls(SHARES["the first has none"]) == [[(2, False), (3, True)]] * 2
    # An empty batch is a batch: nothing ends with it.
    assert calls([[[0], []], [[1], []]]) == [[(2, False), (0, True)]] * 2


@pytest.mark.parametrize(
    ("settings", "gathers"),
    [
        ({}, True),
        ({"loss_only": True}, False),
        ({"collect": False}, False),
        ({"collect": False, "batch_metrics": True}, False),
        ({"collect": False, "compute_metrics": lambda *_, **__: {}}, False),
        ({"collect": False, "batch_metrics": True, "compute_metrics": lambda *_, **__: {}}, True),
    ],
    ids=["kept", "loss alone", "not kept", "batches without a function", "function of nothing", "function of batches"],
)
def test_outputs_are_gathered_where_somebody_looks_at_them(settings: dict[str, Any], gathers: bool) -> None:
    for _, rank, _ in evaluate(SHARES["even"], **settings):
        # The losses are gathered in any case, once.
        assert len(rank.given) == 1 + 2 * 2 * gathers


def test_predictions_and_labels_are_padded_each_with_its_own() -> None:
    def step(model: Any, inputs: Any, *_: Any) -> tuple[Any, Any, Any]:
        width = int(inputs["x"][0])
        return None, torch.ones(1, width), torch.ones(1, width, dtype=torch.long)

    def work(rank: ThreadRank) -> Any:
        plan = plan_of(ranks=rank, prediction_step=step, padding=7)
        return evaluate_batches(plan, [{"x": torch.tensor([1.0 + 2 * rank.world.rank])}], None)

    for output in on_ranks(2, work):
        assert output.predictions.tolist() == [[1, 7, 7], [1, 1, 1]]
        assert output.label_ids.tolist() == [[1, -100, -100], [1, 1, 1]]


# Objects


def objects_on_ranks(outputs: list[list[Any]]) -> list[tuple[Any, int]]:
    """Return what each rank keeps of objects that its batches make, and how many tensors were gathered."""

    def work(rank: ThreadRank) -> Any:
        own = iter(outputs[rank.world.rank])
        plan = plan_of(ranks=rank, objects=True, prediction_step=lambda *_: (None, next(own), None))
        given = [{"x": torch.zeros(2)} for _ in outputs[rank.world.rank]]
        return evaluate_batches(plan, given, None).predictions, sum(one is not None for one in rank.given)

    return on_ranks(len(outputs), work)


def test_lists_of_the_ranks_are_appended_rank_after_rank() -> None:
    found = objects_on_ranks([[["a", "b"], ["e", "f"]], [["c", "d"]]])

    assert found == [(["a", "b", "c", "d", "e", "f"], 0)] * 2


def test_an_object_that_is_no_list_is_one_sample() -> None:
    assert objects_on_ranks([[{"name": "a"}], [{"name": "b"}]]) == [([{"name": "a"}, {"name": "b"}], 0)] * 2


def test_an_object_on_one_rank_makes_objects_of_all() -> None:
    (one, gathered), (other, _) = objects_on_ranks([[torch.tensor([1.0, 2.0])], [["c"]]])

    assert gathered == 0
    assert [str(item) for item in one] == [str(item) for item in other] == ["[1. 2.]", "c"]


def test_tensors_alone_are_gathered_as_tensors() -> None:
    for predictions, gathered in objects_on_ranks([[torch.tensor([1.0, 2.0])], [torch.tensor([3.0, 4.0])]]):
        assert gathered == 1
        np.testing.assert_array_equal(predictions, [1.0, 2.0, 3.0, 4.0])


def test_a_rank_without_a_batch_makes_no_objects_of_tensors() -> None:
    outcomes = objects_on_ranks([[torch.tensor([1.0, 2.0])], []])

    assert [gathered for _, gathered in outcomes] == [1, 0]
    for predictions, _ in outcomes:
        np.testing.assert_array_equal(predictions, [1.0, 2.0])


def test_objects_of_one_process_are_kept_without_an_exchange() -> None:
    def never(value: Any) -> Any:
        raise AssertionError("there is nobody to exchange objects with")

    def work(rank: ThreadRank) -> Any:
        rank.gather_objects = never  # type: ignore[method-assign]
        rank.agree = lambda number: [number]  # type: ignore[method-assign]
        rank.gather = lambda value, **_: value  # type: ignore[method-assign]
        plan = plan_of(ranks=rank, objects=True, prediction_step=lambda *_: (None, ["a", "b"], None))
        return evaluate_batches(plan, [{"x": torch.zeros(2)}], None).predictions

    assert on_ranks(1, work) == [["a", "b"]]


# Losses


def test_the_loss_is_weighed_over_ranks() -> None:
    def work(rank: ThreadRank) -> Any:
        loss = WeighedLoss()
        for value, weight in [[(1.0, 2), (4.0, 1)], [(7.0, 3)], []][rank.world.rank]:
            loss.add(torch.tensor(value), weight)
        return loss.mean(rank, hide_nonfinite=False)

    assert on_ranks(3, work) == [27 / 6] * 3


@pytest.mark.parametrize(("hide", "expected"), [(True, 3.0), (False, math.nan)])
def test_what_is_not_finite_on_one_rank_is_hidden_on_all(hide: bool, expected: float) -> None:
    def work(rank: ThreadRank) -> Any:
        loss = WeighedLoss()
        loss.add(torch.tensor([math.nan, 3.0][rank.world.rank]), 4)
        return loss.mean(rank, hide_nonfinite=hide)

    assert on_ranks(2, work) == [pytest.approx(expected, nan_ok=True)] * 2


# Signals


def stopped(asked: dict[tuple[int, int], int]) -> Callable[[ThreadRank], Callable[[], int]]:
    """Return what each rank answers, by rank and question."""

    def of(rank: ThreadRank) -> Callable[[], int]:
        count = iter(range(100))
        return lambda: asked.get((rank.world.rank, next(count)), 0)

    return of


@pytest.mark.parametrize(
    "asked", [{(1, 0): 15}, {(0, 1): 15}, {(0, 2): 15, (1, 2): 15}], ids=["first", "second", "both"]
)
def test_a_signal_on_one_rank_ends_the_evaluation_on_all(asked: dict[tuple[int, int], int]) -> None:
    def work(rank: ThreadRank) -> Any:
        plan = plan_of(ranks=rank, events=Fired(), stopping=stopped(asked)(rank))
        with pytest.raises(Interrupted) as raised:
            evaluate_batches(plan, batches_of(SHARES["even"][rank.world.rank]), None)
        return raised.value.signal_number, len(plan.events.events)

    # Before the model sees the batch that was at hand.
    rounds = max(0, max(question for _, question in asked) - 1)
    assert on_ranks(2, work) == [(signal.SIGTERM, rounds)] * 2


def test_ctrl_c_is_told_as_such_and_no_signal_disturbs_nothing() -> None:
    def work(rank: ThreadRank) -> Any:
        with pytest.raises(InterruptedByKeyboard):
            evaluate_batches(plan_of(ranks=rank, stopping=lambda: 2), batches_of([[0]]), None)

    on_ranks(2, work)
    shares = SHARES["one has none"]
    for output, *_ in evaluate([*shares[:1], [[5], [6, 7, 8, 9], []]], stopping=stopped({})):
        assert output.num_samples == 10
        assert output.metrics["eval_loss"] == pytest.approx(EXACT, rel=1e-6)


def test_an_error_on_one_rank_is_an_error_on_all() -> None:
    def work(rank: ThreadRank) -> str:
        def step(model: Any, inputs: Any, *_: Any) -> Any:
            raise ValueError("no such class") if rank.world.rank else ValueError("unused")

        def fine(model: Any, inputs: Any, *_: Any) -> Any:
            return None, inputs["x"], None

        plan = plan_of(ranks=rank, prediction_step=step if rank.world.rank else fine)
        with pytest.raises(Exception, match="no such class") as raised:
            evaluate_batches(plan, batches_of([[0, 1]]), None)
        return type(raised.value).__name__

    assert on_ranks(2, work) == ["RankError", "ValueError"]
