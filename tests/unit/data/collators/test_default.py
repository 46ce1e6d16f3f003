import copy
import dataclasses
import sys
import types

import numpy as np
import pytest
import torch

from surestep.data.collators.default import DefaultDataCollator, default_data_collator
from surestep.errors import ArgumentError, DataError


@dataclasses.dataclass
class Sample:
    x: list
    label: int


BATCHES = {
    "numbers": [{"x": 1, "y": 2.5}, {"x": 3, "y": 4}],
    "whole labels": [{"label": 0, "x": 1.0}, {"label": 2, "x": 2.0}],
    "numpy labels": [{"label": np.int64(1)}, {"label": np.int64(0)}],
    "float labels": [{"label": 0.5}, {"label": 1}],
    "bool labels": [{"label": True}, {"label": False}],
    "tensor labels": [{"label": torch.tensor(3)}, {"label": torch.tensor(4)}],
    "float tensor labels": [{"label": torch.tensor(3.5)}, {"label": torch.tensor(4)}],
    "lists as label": [{"label": [0, 1]}, {"label": [1, 1]}],
    "label_ids": [{"label_ids": [0, 1]}, {"label_ids": [1, 1]}],
    "float label_ids": [{"label_ids": [0.5, 1]}, {"label_ids": [1, 1]}],
    "tensor label_ids": [{"label_ids": torch.tensor([0, 1])}, {"label_ids": torch.tensor([1, 1])}],
    "array label_ids": [{"label_ids": np.array([0, 1])}, {"label_ids": np.array([1, 1])}],
    "float array label_ids": [{"label_ids": np.array([0.0, 1])}, {"label_ids": np.array([1.0, 1])}],
    "both labels": [{"label": 1, "label_ids": [1]}, {"label": 2, "label_ids": [2]}],
    "no label but label_ids": [{"label": None, "label_ids": [1]}, {"label": None, "label_ids": [2]}],
    "labels": [{"labels": 1, "x": [1]}, {"labels": 2, "x": [2]}],
    "left out": [{"text": "a", "none": None, "x": 1}, {"text": "b", "none": 3, "x": 2}],
    "lists": [{"x": [1, 2], "y": [[True], [False]]}, {"x": [3, 4], "y": [[True], [True]]}],
    "float lists": [{"x": [1.5, 2], "y": [np.float64(2)]}, {"x": [3, 4], "y": [1.0]}],
    "mixed lists": [{"x": [1, 2], "y": [True, 2]}, {"x": [3.5, 4], "y": [1, 0]}],
    "short integers": [{"x": [np.int32(1)], "y": np.int16(1)}, {"x": [np.int32(2)], "y": np.int16(2)}],
    "tuples": [{"x": (1, 2)}, {"x": (3, 4)}],
    "tensors": [{"x": torch.ones(2, 3), "y": torch.tensor(1)}, {"x": torch.zeros(2, 3), "y": torch.tensor(2)}],
    "arrays": [
        {"x": np.ones((2, 3), np.float32), "y": np.arange(2)},
        {"x": np.zeros((2, 3), np.float32), "y": np.arange(2)},
    ],
    "objects": [Sample([1, 2], 0), Sample([3, 4], 1)],
    "namespaces": [types.SimpleNamespace(x=1.0), types.SimpleNamespace(x=2.0)],
    "later values missing are more": [{"x": 1}, {"x": 2, "z": 3}],
}


@pytest.mark.parametrize("kind", ["pt", "np"])
@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.filterwarnings("ignore:Creating a tensor from a list of numpy")
@pytest.mark.filterwarnings("ignore:Converting a tensor with")
def test_batches_are_the_originals(batch, kind, theirs, both):
    before = copy.deepcopy(batch)
    both(default_data_collator, theirs.default_data_collator, batch, return_tensors=kind, rounds=1)
    both(DefaultDataCollator(kind), theirs.DefaultDataCollator(kind), batch, rounds=1)
    assert str(batch) == str(before)


def test_batch_encodings_are_samples(theirs, both):
    BatchEncoding = pytest.importorskip("transformers").BatchEncoding
    both(default_data_collator, theirs.default_data_collator, [BatchEncoding({"x": [1, 2]})] * 2)


def test_the_kind_of_a_call_comes_first():
    assert isinstance(DefaultDataCollator("pt")([{"x": 1}], return_tensors="np")["x"], np.ndarray)


@pytest.mark.parametrize("collate", [default_data_collator, DefaultDataCollator()])
def test_other_kinds_are_refused(collate):
    with pytest.raises(ArgumentError, match="return_tensors='tf'; write 'pt'"):
        collate([{"x": 1}], return_tensors="tf")


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ([(1, 2), (3, 4)], r"a sample is a tuple of 2 values.*return a dictionary such as \{'x': x, 'labels': y\}"),
        ([[1, 2, 3]], "a sample is a list of 3 values"),
        ([torch.ones(2)], "a sample is a Tensor, and"),
        ([3], "a sample is a int, and"),
        ([{"x": 1}, {"y": 2}], "sample 1 of a batch has no 'x'"),
        ([{"label": 1}, {"x": 2}], "sample 1 of a batch has no 'label'"),
        ([{"ids": [1, 2]}, {"ids": [1]}], "the values of 'ids' in a batch cannot be stacked .*pad them"),
        ([{"ids": torch.ones(2)}, {"ids": torch.ones(1)}], "the values of 'ids'"),
        ([{"ids": np.ones(2)}, {"ids": np.ones(1)}], "the values of 'ids'"),
        ([{"x": {"a": 1}}], "the values of 'x'"),
        ([{"label_ids": [1, 2]}, {"label_ids": [1]}], "the values of 'label_ids'"),
    ],
)
def test_samples_that_make_no_batch_are_refused_with_what_to_do(batch, said):
    with pytest.raises(DataError, match=said):
        default_data_collator(batch)


def test_it_costs_few_python_calls():
    batch = [{"x": torch.ones(2), "labels": 1}] * 32
    calls = []
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event == "call" else None)
    default_data_collator(batch)
    sys.setprofile(None)
    assert len(calls) <= 6, calls
