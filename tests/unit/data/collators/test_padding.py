"""The collators that only pad: padding, token classification, multiple choice, seq2seq."""

import inspect

import numpy as np
import pytest
import torch

from surestep.data.collators.multiple_choice import DataCollatorForMultipleChoice
from surestep.data.collators.padding import DataCollatorWithPadding
from surestep.data.collators.seq2seq import DataCollatorForSeq2Seq
from surestep.data.collators.token_classification import DataCollatorForTokenClassification
from surestep.errors import ArgumentError, DataError

PADDINGS = [
    {},
    {"pad_to_multiple_of": 4},
    {"padding": "longest"},
    {"padding": "max_length", "max_length": 9},
    {"padding": "max_length", "max_length": 9, "pad_to_multiple_of": 4},
]
SIDES = ["right", "left"]
KINDS = ["pt", "np"]


def sample(length, **more):
    return {"input_ids": list(range(5, 5 + length)), "attention_mask": [1] * length, **more}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("options", PADDINGS)
@pytest.mark.parametrize("label", [{"label": 1}, {"label_ids": [1, 2]}, {"labels": 0.5}, {}])
def test_padding(label, options, side, kind, make_tokenizer, theirs, both):
    tokenizer = make_tokenizer(side)
    features = [sample(3, **label), sample(5, **label)]
    ours = DataCollatorWithPadding(tokenizer, return_tensors=kind, **options)
    batch = both(ours, theirs.DataCollatorWithPadding(tokenizer, return_tensors=kind, **options), features)
    assert ("labels" in batch) is bool(label)


def test_padding_gives_no_advice_and_leaves_the_tokenizer_as_it_was(tokenizer, caplog):
    before = dict(tokenizer.deprecation_warnings)
    DataCollatorWithPadding(tokenizer)([sample(2), sample(3)])
    assert "fast tokenizer" not in caplog.text
    assert tokenizer.deprecation_warnings.get("Asking-to-pad-a-fast-tokenizer", False) is before.get(
        "Asking-to-pad-a-fast-tokenizer", False
    )


def test_anything_with_pad_is_a_tokenizer():
    class Extractor:
        def pad(self, features, **options):
            return {"values": torch.tensor([feature["values"] for feature in features]), "label": options["padding"]}

    batch = DataCollatorWithPadding(Extractor())([{"values": [1]}, {"values": [2]}])
    assert batch["values"].tolist() == [[1], [2]]
    assert (batch["labels"], "label" in batch) == (True, False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("options", [*PADDINGS, {"label_pad_token_id": -1}])
@pytest.mark.parametrize("name", ["label", "labels"])
@pytest.mark.parametrize("make", [list, torch.tensor, np.array])
def test_token_classification(make, name, options, side, kind, make_tokenizer, theirs, both):
    tokenizer = make_tokenizer(side)
    features = [sample(3, **{name: make([0, 1, 2])}), sample(5, **{name: make([0, 1, 2, 1, 0])})]
    ours = DataCollatorForTokenClassification(tokenizer, return_tensors=kind, **options)
    both(ours, theirs.DataCollatorForTokenClassification(tokenizer, return_tensors=kind, **options), features)


@pytest.mark.parametrize("kind", KINDS)
def test_token_classification_without_labels(kind, tokenizer, theirs, both):
    features = [sample(3), sample(5)]
    ours = DataCollatorForTokenClassification(tokenizer)
    both(ours, theirs.DataCollatorForTokenClassification(tokenizer), features, return_tensors=kind)


def choices(*lengths, **more):
    ids = [list(range(5, 5 + length)) for length in lengths]
    return {"input_ids": ids, "attention_mask": [[1] * length for length in lengths], **more}


@pytest.mark.parametrize("options", PADDINGS)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", ["label", "labels"])
def test_multiple_choice(name, side, options, make_tokenizer, theirs, both):
    tokenizer = make_tokenizer(side)
    features = [choices(2, 4, **{name: 1}), choices(3, 1, **{name: 0})]
    ours = DataCollatorForMultipleChoice(tokenizer, **options)
    batch = both(ours, theirs.DataCollatorForMultipleChoice(tokenizer, **options), features)
    assert batch["input_ids"].shape[:2] == (2, 2)
    arrays = ours(features, return_tensors="np")
    assert list(arrays) == list(batch)
    for key, value in batch.items():
        assert type(arrays[key]) is np.ndarray
        assert arrays[key].tolist() == value.tolist()


def test_multiple_choice_without_labels(tokenizer):
    assert "labels" not in DataCollatorForMultipleChoice(tokenizer)([choices(2, 4)])


class Decoder:
    def prepare_decoder_input_ids_from_labels(self, labels):
        return labels.clone() + 1 if isinstance(labels, torch.Tensor) else labels + 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("options", [*PADDINGS, {"label_pad_token_id": -1}])
@pytest.mark.parametrize("name", ["label", "labels"])
@pytest.mark.parametrize("make", [list, torch.tensor, np.array])
@pytest.mark.filterwarnings("ignore:Creating a tensor from a list of numpy")
def test_seq2seq(make, name, options, side, kind, make_tokenizer, theirs, both):
    tokenizer = make_tokenizer(side)
    features = [sample(3, **{name: make([7, 8])}), sample(5, **{name: make([7, 8, 9])})]
    ours = DataCollatorForSeq2Seq(tokenizer, return_tensors=kind, **options)
    both(ours, theirs.DataCollatorForSeq2Seq(tokenizer, return_tensors=kind, **options), features)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", [Decoder(), object()])
def test_seq2seq_asks_the_model_for_decoder_inputs(model, kind, tokenizer, theirs, both):
    features = [sample(3, labels=[7, 8]), sample(5, labels=[7, 8, 9])]
    ours = DataCollatorForSeq2Seq(tokenizer, model)
    batch = both(ours, theirs.DataCollatorForSeq2Seq(tokenizer, model), features, return_tensors=kind)
    assert ("decoder_input_ids" in batch) is isinstance(model, Decoder)


@pytest.mark.parametrize("padding", [False, "do_not_pad"])
@pytest.mark.parametrize("make", [list, np.array])
@pytest.mark.filterwarnings("ignore:Creating a tensor from a list of numpy")
def test_seq2seq_without_padding(make, padding, tokenizer, theirs, both):
    features = [sample(3, labels=make([7, 8])), sample(3, labels=make([8, 9]))]
    ours = DataCollatorForSeq2Seq(tokenizer, padding=padding)
    both(ours, theirs.DataCollatorForSeq2Seq(tokenizer, padding=padding), features)


@pytest.mark.parametrize("labels", [{}, {"labels": None}])
def test_seq2seq_without_labels(labels, tokenizer, theirs, both):
    features = [sample(3, **labels), sample(5, **labels)]
    batch = both(
        DataCollatorForSeq2Seq(tokenizer, Decoder()), theirs.DataCollatorForSeq2Seq(tokenizer, Decoder()), features
    )
    assert batch["labels"] is None


def test_seq2seq_takes_the_originals_enumeration(tokenizer, theirs, both):
    strategy = theirs.PaddingStrategy.MAX_LENGTH
    features = [sample(3, labels=[1]), sample(5, labels=[1, 2])]
    options = {"padding": strategy, "max_length": 7}
    batch = both(
        DataCollatorForSeq2Seq(tokenizer, **options), theirs.DataCollatorForSeq2Seq(tokenizer, **options), features
    )
    assert batch["labels"].shape == (2, 7)


@pytest.mark.parametrize(
    "options", [{"padding": False}, {"padding": "max_length", "max_length": 2, "pad_to_multiple_of": None}]
)
def test_seq2seq_labels_of_several_lengths_are_refused(options, tokenizer):
    features = [sample(2, labels=[7, 8]), sample(2, labels=[7, 8, 9])]
    with pytest.raises(DataError, match="labels of 2 to 3 tokens make no matrix with padding="):
        DataCollatorForSeq2Seq(tokenizer, **options)(features)


@pytest.mark.parametrize(
    "collator", [DataCollatorForTokenClassification, DataCollatorForMultipleChoice, DataCollatorForSeq2Seq]
)
def test_other_kinds_are_refused(collator, tokenizer):
    with pytest.raises(ArgumentError, match="return_tensors='tf'"):
        collator(tokenizer, return_tensors="tf")([sample(2, labels=[1, 1])])


def parameters(function):
    return [(name, one.default) for name, one in inspect.signature(function).parameters.items()]


@pytest.mark.parametrize(
    "collator",
    [
        DataCollatorWithPadding,
        DataCollatorForTokenClassification,
        DataCollatorForMultipleChoice,
        DataCollatorForSeq2Seq,
    ],
)
def test_settings_are_the_originals(collator, theirs):
    assert parameters(collator) == parameters(getattr(theirs, collator.__name__))
