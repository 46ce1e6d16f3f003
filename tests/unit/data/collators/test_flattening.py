import itertools

import numpy as np
import pytest
import torch

from surestep.data.collators.default import DefaultDataCollator
from surestep.data.collators.flattening import DataCollatorWithFlattening
from surestep.errors import ArgumentError

FLAGS = ["return_position_ids", "return_flash_attn_kwargs", "return_seq_idx"]


@pytest.mark.parametrize("kind", ["pt", "np"])
@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("make", [list, torch.tensor, np.array])
def test_batches_are_the_originals(make, labelled, flags, kind, theirs, both):
    options = {**dict(zip(FLAGS, flags, strict=True)), "position_ids_start": 2, "separator_id": -7}
    features = [{"input_ids": make([5, 6, 7])}, {"input_ids": make([8])}, {"input_ids": make([9, 10])}]
    if labelled:
        for feature in features:
            feature["labels"] = feature["input_ids"]
    batch = both(
        DataCollatorWithFlattening(kind, **options), theirs.DataCollatorWithFlattening(kind, **options), features
    )
    assert batch["labels"].tolist() == [[-7, 6, 7, -7, -7, 10]]


def test_a_call_may_say_otherwise(theirs, both):
    features = [{"input_ids": [5, 6]}, {"input_ids": [7]}]
    both(
        DataCollatorWithFlattening(), theirs.DataCollatorWithFlattening(), features, return_tensors="np", separator_id=3
    )


def test_defaults_are_the_originals(theirs):
    ours, original = DataCollatorWithFlattening(), theirs.DataCollatorWithFlattening()
    for name in ["return_tensors", "separator_id", "position_ids_start", *FLAGS]:
        assert getattr(ours, name) == getattr(original, name)
    assert isinstance(ours, DefaultDataCollator)


def test_other_kinds_are_refused():
    with pytest.raises(ArgumentError, match="return_tensors='tf'"):
        DataCollatorWithFlattening("tf")([{"input_ids": [1]}])
