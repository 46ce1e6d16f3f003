"""Texts: words to numbers, numbers to batches, batches to scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from surestep.errors import DataError, ModelError
from surestep.tasks.data.splits import Split, Splits
from surestep.tasks.data.table import Table
from surestep.tasks.labels import LabelSet
from surestep.tasks.settings import Pretrained, TextClassification, TextEncoder
from surestep.tasks.text.batches import PadTexts, TextDataset, pad_batch
from surestep.tasks.text.encoder import TextEncoderModel
from surestep.tasks.text.hub_tokenizer import HubTokenizer
from surestep.tasks.text.task import TextClassificationTask
from surestep.tasks.text.vocabulary import Vocabulary

TEXTS = ["The cat, the dog!", "the DOG sat", "a cat"]


def _learn(texts: list[str] = TEXTS, **changes: Any) -> Vocabulary:
    return Vocabulary.learn(texts, **{"size": 100, "min_count": 1, "lowercase": True, "max_length": 8, **changes})


def test_words_are_known_by_frequency_then_alphabet() -> None:
    assert _learn().words == ("[PAD]", "[UNK]", "the", "cat", "dog", "!", ",", "a", "sat")
    assert _learn(size=4).words == ("[PAD]", "[UNK]", "the", "cat")
    assert _learn(min_count=2).words == ("[PAD]", "[UNK]", "the", "cat", "dog")
    assert "The" in _learn(lowercase=False).words


def test_texts_become_numbers() -> None:
    vocabulary = _learn(min_count=2)
    assert vocabulary.encode(["the dog barks"]) == [[2, 4, 1]]
    assert vocabulary.encode([""]) == [[1]]
    assert vocabulary.encode(["the " * 20]) == [[2] * 8]
    assert len(vocabulary) == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("don't stop", ["don", "'", "t", "stop"]),
        ("C3PO costs 5€", ["c3po", "costs", "5", "€"]),
        ("我爱 deep learning", ["我", "爱", "deep", "learning"]),
        ("naïve  café\n", ["naïve", "café"]),
        ("한국어 문장", ["한국어", "문장"]),
    ],
)
def test_words_of_many_scripts_are_found(text: str, words: list[str]) -> None:
    assert sorted(_learn([text]).words[2:]) == sorted(words)


def test_a_vocabulary_survives_its_description() -> None:
    vocabulary = _learn()
    assert TextClassificationTask(TextClassification()).read_inputs(vocabulary.describe(), Path()) == vocabulary


def test_batches_are_filled_up_to_their_longest_text() -> None:
    samples = [{"input_ids": [5, 6, 7], "labels": 1}, {"input_ids": [8], "labels": 0}]
    batch = PadTexts(pad_id=9)(samples)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]
    assert batch["labels"].dtype == torch.int64


def test_samples_are_numbers_and_class() -> None:
    samples = TextDataset([[2, 3], [4]], np.array([1, 0]))
    assert len(samples) == 2
    assert samples[0] == {"input_ids": [2, 3], "labels": 1}


def _model(**changes: Any) -> TextEncoderModel:
    torch.manual_seed(0)
    return TextEncoderModel(TextEncoder(dim=16, num_heads=2, dropout=0.0, **changes), 20, 8, 3)


def test_the_model_gives_the_mean_loss_and_parts_add_up() -> None:
    model = _model()
    batch = pad_batch([[2, 3, 4], [5], [6, 7], [8]], 0)
    labels = torch.tensor([0, 1, 2, 1])
    output = model(**batch, labels=labels)
    assert output["logits"].shape == (4, 3)
    assert torch.allclose(output["loss"], nn.functional.cross_entropy(output["logits"], labels))
    parts = [
        model(**{key: value[part] for key, value in batch.items()}, labels=labels[part], num_items_in_batch=4)["loss"]
        for part in (slice(0, 3), slice(3, 4))
    ]
    assert torch.allclose(sum(parts), output["loss"], atol=1e-6)


def test_filling_changes_no_score() -> None:
    model = _model()
    alone = model(**pad_batch([[2, 3]], 0))["logits"]
    beside = model(**pad_batch([[2, 3], [4, 5, 6, 7, 8]], 0))["logits"][:1]
    assert torch.allclose(alone, beside, atol=1e-6)
    assert torch.allclose(alone, model(torch.tensor([[2, 3]]))["logits"], atol=1e-6)


def test_the_order_of_words_matters() -> None:
    model = _model()
    assert not torch.allclose(
        model(torch.tensor([[2, 3]]))["logits"], model(torch.tensor([[3, 2]]))["logits"], atol=1e-5
    )


def _splits(train: list[Any], other: list[Any]) -> Splits:
    def part(values: list[Any]) -> Split:
        return Split(Table({"text": values}, "here"), np.arange(len(values)) % 2)

    return Splits({"train": part(train), "validation": part(other)}, LabelSet(("a", "b"), ("a", "b")))


def test_the_vocabulary_is_learnt_from_training_texts_alone() -> None:
    task = TextClassificationTask(TextClassification(max_length=4))
    prepared = task.prepare(_splits(["one two", "two"], ["three"]), "text", TextEncoder(dim=8), Path())
    assert isinstance(prepared.inputs, Vocabulary)
    assert prepared.inputs.words[2:] == ("two", "one")
    assert prepared.samples["validation"][0]["input_ids"] == [1]
    assert prepared.collate == PadTexts(0)
    assert isinstance(prepared.model, TextEncoderModel)


@pytest.mark.parametrize("value", [None, 3, float("nan")])
def test_a_row_without_text_is_named(value: Any) -> None:
    task = TextClassificationTask(TextClassification())
    with pytest.raises(DataError, match=r"column 'text', row 1 of the validation data of here: expected a text"):
        task.prepare(_splits(["one", "two"], ["three", value]), "text", TextEncoder(dim=8), Path())


@pytest.fixture
def bert_folder(tmp_path: Path) -> Path:
    import transformers

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two", "three"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    tokenizer.save_pretrained(tmp_path / "bert")
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=16,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    return tmp_path


def test_a_folder_of_transformers_gives_model_and_tokenizer(bert_folder: Path, tmp_path: Path) -> None:
    task = TextClassificationTask(TextClassification(max_length=4))
    prepared = task.prepare(
        _splits(["one two three one", "two"], ["three"]), "text", Pretrained(path="bert"), bert_folder
    )
    assert isinstance(prepared.inputs, HubTokenizer)
    assert len(prepared.samples["train"][0]["input_ids"]) == 4
    batch = prepared.inputs.collate([prepared.samples["train"][i] for i in range(2)])
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert prepared.model(**batch)["logits"].shape == (2, 2)
    prepared.inputs.save(tmp_path / "kept")
    again = task.read_inputs(prepared.inputs.describe(), tmp_path / "kept")
    assert torch.equal(again.batch(["one two"])["input_ids"], prepared.inputs.batch(["one two"])["input_ids"])


def test_a_folder_whose_model_cannot_be_read_is_refused(bert_folder: Path) -> None:
    (bert_folder / "bert" / "config.json").write_text('{"model_type": "no such model"}')
    with pytest.raises(ModelError, match="cannot be read as AutoModelForSequenceClassification"):
        TextClassificationTask(TextClassification()).pretrained_model(
            bert_folder / "bert", LabelSet(("a", "b"), ("a", "b")), from_scratch=True
        )


def test_a_folder_without_a_tokenizer_is_refused(bert_folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bert_folder / "bert" / name).unlink()
    with pytest.raises(ModelError, match="holds no tokenizer"):
        HubTokenizer(bert_folder / "bert" / "nowhere", 8)
