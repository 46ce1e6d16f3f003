"""What is handed back has the names and the order of the original."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import trainer_utils

from surestep.metrics import prediction


@pytest.mark.parametrize("name", ["EvalLoopOutput", "PredictionOutput", "TrainOutput"])
def test_fields_in_the_order_of_the_original(name: str) -> None:
    assert getattr(prediction, name)._fields == getattr(trainer_utils, name)._fields


@pytest.mark.parametrize(
    "extras", [{}, {"inputs": "inputs"}, {"losses": "losses"}, {"inputs": "inputs", "losses": "losses"}], ids=str
)
def test_a_prediction_unpacks_as_in_the_original(extras: dict[str, Any]) -> None:
    ours = prediction.EvalPrediction("predictions", "labels", **extras)
    theirs = trainer_utils.EvalPrediction("predictions", "labels", **extras)

    assert list(ours) == list(theirs)
    assert ours[0] == theirs[0] == "predictions"
    assert ours[len(extras) + 1] == theirs[len(extras) + 1]
    assert vars(ours).keys() >= {"predictions", "label_ids", "inputs", "losses"}
    with pytest.raises(IndexError):
        ours[len(extras) + 2]
