"""One, two and three ranks: the same metrics and intervals, predictions in order, whatever is kept where."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.metrics import f1_score, matthews_corrcoef
from torch import nn

from tests.distributed.launch import launch
from tests.distributed.measuring import Ragged
from tests.distributed.training import IGNORED, Sentences, Tagger

Ranks = dict[int, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    folder = tmp_path_factory.mktemp("ranks")
    return {size: launch("tests.distributed.measuring", size, folder / str(size)) for size in (1, 2, 3)}


@pytest.mark.parametrize("samples", ["1", "5", "13"])
@pytest.mark.parametrize("case", ["named", "objects of torchmetrics"])
@pytest.mark.parametrize("size", [2, 3])
def test_metrics_do_not_depend_on_the_ranks(ranks: Ranks, size: int, case: str, samples: str) -> None:
    alone = ranks[1][0][case][samples]
    for rank in ranks[size]:
        assert rank[case][samples] == pytest.approx(alone, rel=1e-6, nan_ok=True)


def test_metrics_are_those_of_scikit_learn(ranks: Ranks) -> None:
    data = Sentences(13)
    kept = data.labels != IGNORED
    logits = Tagger()(data.tokens, data.labels)["logits"][kept].detach()
    labels, chosen = data.labels[kept], logits.argmax(1)
    found = ranks[3][2]["named"]["13"]

    assert found["eval_accuracy"] == pytest.approx(float((chosen == labels).double().mean()), rel=1e-6)
    assert found["eval_f1"] == pytest.approx(f1_score(labels, chosen, average="macro"), rel=1e-6)
    assert found["eval_mcc"] == pytest.approx(matthews_corrcoef(labels, chosen), rel=1e-6)
    assert found["eval_perplexity"] == pytest.approx(float(nn.functional.cross_entropy(logits, labels).exp()), rel=1e-6)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("case", ["intervals", "spilled"])
def test_intervals_and_spilled_arrays_do_not_depend_on_the_ranks(ranks: Ranks, size: int, case: str) -> None:
    alone = ranks[1][0][case]
    assert ranks[1][0]["spilled"]["kinds"] == ["memmap"]
    for rank in ranks[size]:
        found, expected = rank[case], alone
        if case == "spilled":
            assert found["kinds"] == expected["kinds"]
            found, expected = found["metrics"], expected["metrics"]
        assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_grouped_predictions_come_in_the_order_of_the_dataset(ranks: Ranks, size: int) -> None:
    tokens = [Ragged()[index]["input_ids"] for index in range(13)]
    for rank in ranks[size]:
        found = rank["grouped"]
        assert found["labels"] == found["read labels"] == list(range(13))
        for row, read, sentence in zip(found["predictions"], found["read"], tokens, strict=True):
            torch.testing.assert_close(row[: len(sentence)], sentence.float())
            torch.testing.assert_close(read[: len(sentence)], sentence.float())


@pytest.mark.parametrize("size", [1, 2, 3])
def test_each_rank_writes_its_own_files(ranks: Ranks, size: int) -> None:
    written = [f"predictions-{rank:05}-00000.safetensors" for rank in range(size)]

    assert ranks[size][0]["grouped"]["files"] == [*written, "predictions.json"]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_objects_of_all_ranks_come_in_order(ranks: Ranks, size: int) -> None:
    sums = [float(Ragged()[index]["input_ids"].sum()) for index in range(13)]
    for rank in ranks[size]:
        assert [one for one, _ in rank["items"]] == sums
        # A tensor comes as an array, anything else as it is.
        assert all(isinstance(length, int) for _, length in rank["items"])


@pytest.mark.parametrize("size", [2, 3])
def test_training_batches_are_measured_over_all_ranks(ranks: Ranks, size: int) -> None:
    alone = ranks[1][0]["trained"]
    assert len(alone) == 4
    for rank in ranks[size]:
        assert rank["trained"] == [pytest.approx(one, rel=1e-6) for one in alone]
