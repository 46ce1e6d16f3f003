"""A small tokenizer with word pieces, and comparing batches."""

import random

import numpy as np
import pytest
import torch

WORDS = ["the", "cat", "sat", "##s", "##ting", "un", "##like", "##ly", "on", "mat", "a", "dog", "ran", "##ner"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="session")
def make_tokenizer():
    """Return a function that makes a tokenizer padding on a side."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {token: number for number, token in enumerate(SPECIAL + WORDS)}

    def make(side="right", **options):
        core = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
        core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        core.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        names = {
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
        }
        return transformers.PreTrainedTokenizerFast(tokenizer_object=core, padding_side=side, **{**names, **options})

    return make


@pytest.fixture
def tokenizer(make_tokenizer):
    return make_tokenizer()


@pytest.fixture
def theirs():
    """The original's collators."""
    return pytest.importorskip("transformers.data.data_collator")


def seed_all(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.fixture
def assert_same():
    """Return a function that compares two batches: names in order, kinds, types of number and values."""

    def compare(ours, expected):
        assert list(ours) == list(expected)
        for name, value in expected.items():
            assert type(ours[name]) is type(value), name
            if value is None or isinstance(value, int):
                assert ours[name] == value
                continue
            assert ours[name].dtype == value.dtype, name
            assert ours[name].shape == value.shape, name
            assert bool((ours[name] == value).all()), name

    return compare


@pytest.fixture
def both(assert_same):
    """Return a function that runs our collator and the original's from the same seeds and compares the batches."""

    def run(ours, theirs, features, rounds=3, **options):
        batches = []
        for collator in (ours, theirs):
            seed_all(0)
            batches.append([collator(features() if callable(features) else features, **options) for _ in range(rounds)])
        for mine, original in zip(*batches, strict=True):
            assert_same(mine, original)
        return batches[0][0]

    return run
