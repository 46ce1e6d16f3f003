import logging
import pickle

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from surestep.data.columns import (
    ColumnFilter,
    ModelColumns,
    can_return_loss,
    drop_unused,
    find_labels,
    has_columns,
    inspected_model,
    labels_come_from_dataset,
)
from surestep.data.sources import FrameDataset
from surestep.errors import DataError


class Classifier(nn.Module):
    def forward(self, input_ids, attention_mask=None, labels=None, return_loss=False, **kwargs):
        return None


class SpanQuestionAnswering(nn.Module):
    def forward(self, input_ids, start_positions=None, end_positions=None, span_label=None):
        return None


class Spans(nn.Module):
    def forward(self, input_ids, start_positions=None, end_positions=None, return_loss=True):
        return None


class TakesAll(nn.Module):
    def forward(self, *args, **inputs):
        return None


class TakesAllButNamesLabels(nn.Module):
    def forward(self, labels=None, **inputs):
        return None


class Wrapper(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def get_base_model(self):
        return self.inner

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


MODELS = [Classifier, SpanQuestionAnswering, Spans, TakesAll, TakesAllButNamesLabels]


def keep(features):
    return features


@pytest.mark.parametrize("model_class", MODELS)
def test_labels_and_loss_are_found_as_the_original_finds_them(model_class):
    generic = pytest.importorskip("transformers.utils.generic")
    assert find_labels(model_class) == generic.find_labels(model_class)
    assert can_return_loss(model_class) == generic.can_return_loss(model_class)


def test_the_names_of_labels():
    assert find_labels(Classifier) == ["labels"]
    assert find_labels(SpanQuestionAnswering) == ["start_positions", "end_positions", "span_label"]
    assert find_labels(Spans) == []
    assert [can_return_loss(model) for model in (Classifier, Spans)] == [False, True]


def test_columns_are_the_signature_and_the_names_of_labels():
    columns = ModelColumns.of(Classifier())
    assert columns.names == ("input_ids", "attention_mask", "labels", "return_loss", "label", "label_ids")
    assert (columns.labels, columns.takes_all, columns.model_name) == (("labels",), False, "Classifier")
    assert ModelColumns.of(Classifier(), ["target"]).names[-1] == "target"
    assert columns.unused(["text", "input_ids", "label", "idx", "kwargs"]) == ["text", "idx", "kwargs"]


def test_a_forward_without_inputs_of_its_own_takes_every_column():
    for model in (TakesAll(), TakesAllButNamesLabels()):
        columns = ModelColumns.of(model)
        assert columns.takes_all
        assert columns.unused(["a", "labels"]) == []
        assert columns.check(["a", "b"], "set") == []


def test_signatures_are_read_under_wrappers():
    inner = Classifier()
    compiled = torch.compile(inner)
    for model in (inner, compiled, nn.DataParallel(inner), Wrapper(inner), nn.DataParallel(compiled)):
        assert inspected_model(model) is inner
        assert ModelColumns.of(model).names == ModelColumns.of(inner).names
    assert ModelColumns.of(Wrapper(inner)).model_name == "Wrapper"


def test_a_mixed_adapter_names_its_model_otherwise():
    inner = Classifier()
    mixed_class = type("PeftMixedModel", (nn.Module,), {"__module__": "peft.mixed_model"})
    mixed = mixed_class()
    mixed.base_model = nn.Module()
    mixed.base_model.model = inner
    assert inspected_model(mixed) is inner


def test_an_object_without_forward_is_refused():
    with pytest.raises(DataError, match="int has no forward"):
        ModelColumns.of(3)


def test_a_table_loses_its_unused_columns_and_it_is_said_once(caplog):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"text": ["a"], "input_ids": [[1]], "label": [0], "idx": [5]})
    with caplog.at_level(logging.INFO, logger="surestep"):
        fewer = drop_unused(table, ModelColumns.of(Classifier()), "train_dataset", need_labels=True)
    assert fewer.column_names == ["input_ids", "label"]
    assert [record.message for record in caplog.records] == [
        "train_dataset: Classifier.forward takes no text, idx; left out (remove_unused_columns=False keeps them)."
    ]
    assert table.column_names == ["text", "input_ids", "label", "idx"]
    assert drop_unused(fewer, ModelColumns.of(Classifier())) is fewer


def test_tables_are_what_can_lose_columns():
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"a": [1]})
    assert has_columns(table)
    assert has_columns(FrameDataset(pd.DataFrame({"a": [1]})))
    assert not has_columns([{"a": 1}])
    assert not has_columns(table.to_iterable_dataset())


@pytest.mark.parametrize(
    ("names", "need_labels", "said"),
    [
        (
            ["text", "target"],
            False,
            "no column is left, for Classifier.forward takes .input_ids, .*columns are .text, t",
        ),
        (["input_ids", "target"], True, r"no labels are left, .*as \(labels\) and would lose \(target\).*to 'labels'"),
    ],
)
def test_losing_the_inputs_or_the_labels_is_an_error(names, need_labels, said):
    columns = ModelColumns.of(Classifier())
    with pytest.raises(DataError, match=f"^eval_dataset: {said}"):
        columns.check(names, "eval_dataset", need_labels=need_labels)
    row = dict.fromkeys(names, 1)
    with pytest.raises(DataError, match=f"^eval_dataset: {said}"):
        ColumnFilter(keep, columns, "eval_dataset", need_labels=need_labels)([row])
    with pytest.raises(DataError, match=f"^eval_dataset: {said}"):
        drop_unused(FrameDataset(pd.DataFrame([row])), columns, "eval_dataset", need_labels=need_labels)


@pytest.mark.parametrize(
    "names", [["input_ids"], ["input_ids", "text", "label"], ["input_ids", "idx", "label_ids"], []]
)
def test_labels_that_were_never_there_or_come_by_another_name_are_no_error(names):
    ModelColumns.of(Classifier()).check(names, "set", need_labels=True)


def test_without_need_of_labels_they_may_go():
    assert ModelColumns.of(Classifier()).check(["input_ids", "target"], "set") == ["target"]


def test_the_filter_drops_from_copies_and_says_so_once(caplog):
    rows = [{"input_ids": 1, "text": "a"}, {"input_ids": 2, "other": 3}, {"labels": 0}]

    def destroy(features):
        taken = [dict(feature) for feature in features]
        for feature in features:
            feature.clear()
        return taken

    collate = ColumnFilter(destroy, ModelColumns.of(Classifier()), "train_dataset")
    with caplog.at_level(logging.INFO, logger="surestep"):
        for _ in range(2):
            assert collate(rows) == [{"input_ids": 1}, {"input_ids": 2}, {"labels": 0}]
    assert rows == [{"input_ids": 1, "text": "a"}, {"input_ids": 2, "other": 3}, {"labels": 0}]
    assert len(caplog.records) == 1
    assert "no text;" in caplog.text


def test_the_filter_filters_as_the_originals_does():
    trainer_utils = pytest.importorskip("transformers.trainer_utils")
    BatchEncoding = pytest.importorskip("transformers").BatchEncoding
    columns = ModelColumns.of(Classifier())
    rows = [{"a": 1, "input_ids": 2, "label": 3}, (1, 2), BatchEncoding({"a": 1}), "text", {"input_ids": 4}]
    theirs = trainer_utils.RemoveColumnsCollator(keep, columns.names)(list(rows))
    ours = ColumnFilter(keep, columns)(list(rows))
    assert ours == theirs
    assert ours[2] is rows[2]


def test_a_filter_for_a_model_that_takes_all_hands_everything_over():
    rows = [{"a": 1}]
    assert ColumnFilter(keep, ModelColumns.of(TakesAll()))(rows) is rows


def test_a_filter_is_small_and_goes_to_workers():
    collate = ColumnFilter(keep, ModelColumns.of(Classifier()), "train_dataset")
    assert len(pickle.dumps(collate)) < 600
    rows = [{"input_ids": index, "text": "a"} for index in range(4)]
    loader = DataLoader(rows, 2, collate_fn=collate, num_workers=1, multiprocessing_context="spawn")
    assert [row["input_ids"] for batch in loader for row in batch] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("default_data_collator", True),
        ("DefaultDataCollator", True),
        ("DataCollatorWithPadding", True),
        ("DataCollatorForLanguageModeling", False),
        ("DataCollatorWithFlattening", False),
    ],
)
def test_which_collators_make_no_labels(name, wanted):
    collators = pytest.importorskip("transformers.data.data_collator")
    collator = getattr(collators, name)
    if isinstance(collator, type):
        collator = collator.__new__(collator)
    assert labels_come_from_dataset(collator) is wanted
    assert not labels_come_from_dataset(keep)
