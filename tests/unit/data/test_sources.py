from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from torch.utils.data import IterableDataset

from surestep.data.sources import FrameDataset, StreamDataset, as_dataset
from surestep.errors import DataError


class Again:
    """Starts anew with each `iter`."""

    def __iter__(self):
        return iter([1, 2])


class Unsized:
    def __getitem__(self, index):
        return index


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("data/train.csv", "my_set is the path 'data/train.csv'; read it first"),
        (Path("train.csv"), "is the path 'train.csv'"),
        ({"train": [1], "test": [2]}, "a dictionary with the keys train, test; give one of its datasets"),
        ((number for number in range(3)), "a generator, which can be read only once"),
        (Unsized(), "a Unsized without __len__; add the method"),
        (object(), "a object, with neither __getitem__ nor __iter__"),
        (None, "a NoneType, with neither"),
        (7, "a int, with neither"),
    ],
)
def test_what_is_no_dataset_is_refused_with_what_to_give(source, said):
    with pytest.raises(DataError, match=f"^my_set.*{said.removeprefix('my_set')}"):
        as_dataset(source, "my_set")


def test_a_dictionary_of_splits_from_datasets_is_refused():
    datasets = pytest.importorskip("datasets")
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"a": [1]})})
    with pytest.raises(DataError, match="keys train"):
        as_dataset(splits)


def test_datasets_stay_as_they_are():
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"a": [1]})

    class Stream(IterableDataset):
        def __iter__(self):
            return iter([1])

    for source in (
        [{"a": 1}],
        (1, 2),
        table,
        table.to_iterable_dataset(),
        Stream(),
        FrameDataset(pd.DataFrame({"a": [1]})),
    ):
        assert as_dataset(source) is source


def test_an_iterable_becomes_a_stream_that_starts_anew():
    stream = as_dataset(Again())
    assert isinstance(stream, StreamDataset)
    assert list(stream) == list(stream) == [1, 2]
    stream.set_epoch(1)


def test_a_stream_hands_its_epoch_on():
    source = Again()
    source.set_epoch = lambda epoch: setattr(source, "epoch", epoch)
    StreamDataset(source).set_epoch(4)
    assert source.epoch == 4


def test_a_frames_rows_are_plain_python_values():
    frame = pd.DataFrame(
        {"i": [1, 2], "f": np.array([0.5, 1.5], np.float32), "b": [True, False], "s": ["x", "y"], "o": [[1], [2, 3]]},
        index=["p", "q"],
    )
    rows = as_dataset(frame)
    assert len(rows) == 2
    assert rows[1] == {"i": 2, "f": 1.5, "b": False, "s": "y", "o": [2, 3]}
    assert [type(value) for value in rows[0].values()] == [int, float, bool, str, list]
    assert rows["i"] == [1, 2]
    assert rows[-1] == rows[1]


def test_a_frame_loses_columns_like_a_table():
    frame = pd.DataFrame({"a": [1], "b": [2], "c": [3]})
    fewer = FrameDataset(frame).remove_columns(["b"])
    assert fewer.column_names == ["a", "c"]
    assert fewer[0] == {"a": 1, "c": 3}
    assert list(frame.columns) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("columns", "said"), [([0, 1], "a column of the frame is called 0"), (["a", "a"], "share a name: a, a")]
)
def test_frames_with_columns_that_no_model_can_take_are_refused(columns, said):
    with pytest.raises(DataError, match=said):
        as_dataset(pd.DataFrame([[1, 2]], columns=columns))
