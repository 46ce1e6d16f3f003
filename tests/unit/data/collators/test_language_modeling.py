import inspect
import logging
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from surestep.data.collators.language_modeling import DataCollatorForLanguageModeling
from surestep.data.collators.masking import spread_over_words, word_numbers
from surestep.data.columns import ColumnFilter, ModelColumns
from surestep.data.reading import Reader
from surestep.errors import ArgumentError, DataError

TEXTS = ["the cat sat on a mat", "unlikely dogs ran", "the runner", "sitting cats sat on the dog a mat ran the cat"]
KINDS = ["pt", "np"]


def encoded(tokenizer, texts=TEXTS, **options):
    return [dict(tokenizer(text, **options)) for text in texts]


def same_length(tokenizer, **options):
    return encoded(tokenizer, TEXTS, padding="max_length", max_length=16, **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mlm": False},
        {"mlm_probability": 0.5},
        {"mlm_probability": 0},
        {"mlm_probability": 1, "mask_replace_prob": 0.2, "random_replace_prob": 0.7},
        {"mlm_probability": 0.7, "mask_replace_prob": 1, "random_replace_prob": 0},
        {"mlm_probability": 0.7, "mask_replace_prob": 0, "random_replace_prob": 1},
        {"mlm_probability": 0.7, "mask_replace_prob": 0.5, "random_replace_prob": 0},
        {"pad_to_multiple_of": 8},
    ],
)
@pytest.mark.parametrize("special", [True, False])
def test_batches_are_the_originals(special, options, seed, kind, tokenizer, theirs, both):
    features = encoded(tokenizer, return_special_tokens_mask=special)
    options = {**options, "return_tensors": kind, "seed": seed}
    batch = both(
        DataCollatorForLanguageModeling(tokenizer, **options),
        theirs.DataCollatorForLanguageModeling(tokenizer, **options),
        lambda: [dict(feature) for feature in features],
        rounds=4,
    )
    assert batch["input_ids"].shape == batch["labels"].shape


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("make", [list, tuple, np.array, torch.tensor])
@pytest.mark.parametrize("multiple", [None, 4])
def test_bare_sequences_are_stacked(multiple, make, side, kind, make_tokenizer, theirs, both):
    if make is torch.tensor and kind == "np":
        pytest.skip("the original takes no tensors to arrays")
    tokenizer = make_tokenizer(side)
    features = [make([5, 6, 7]), make([8, 9, 10, 11, 12]), make([13])]
    options = {"return_tensors": kind, "pad_to_multiple_of": multiple, "mlm_probability": 0.5}
    batch = both(
        DataCollatorForLanguageModeling(tokenizer, **options),
        theirs.DataCollatorForLanguageModeling(tokenizer, **options),
        features,
    )
    assert batch["input_ids"].shape == (3, 5 if multiple is None else 8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("special", [True, False])
def test_whole_words_are_the_originals(special, seed, kind, tokenizer, theirs, both):
    features = same_length(tokenizer, return_offsets_mapping=True, return_special_tokens_mask=special)
    options = {
        "whole_word_mask": True,
        "mlm_probability": 0.4,
        "mask_replace_prob": 1,
        "random_replace_prob": 0,
        "return_tensors": kind,
        "seed": seed,
    }
    both(
        DataCollatorForLanguageModeling(tokenizer, **options),
        theirs.DataCollatorForLanguageModeling(tokenizer, **options),
        lambda: [dict(feature) for feature in features],
        rounds=6,
    )


def test_whole_words_are_masked_whole(tokenizer):
    options = {"whole_word_mask": True, "mlm_probability": 0.5, "mask_replace_prob": 1, "random_replace_prob": 0}
    collate = DataCollatorForLanguageModeling(tokenizer, seed=1, **options)
    text = "unlikely sitting runner cats"
    ids = tokenizer(text)["input_ids"]
    words = tokenizer(text).word_ids()
    seen = set()
    for _ in range(20):
        batch = collate([dict(tokenizer(text, return_offsets_mapping=True))])
        chosen = (batch["labels"][0] != -100).tolist()
        for word in range(4):
            of_word = {one for one, number in zip(chosen, words, strict=True) if number == word}
            assert len(of_word) == 1
            seen |= of_word
        assert batch["input_ids"][0].tolist() == [4 if one else token for one, token in zip(chosen, ids, strict=True)]
    assert seen == {True, False}


def test_words_and_their_spread():
    offsets = np.array(
        [[[0, 0], [0, 2], [2, 4], [5, 7], [7, 9], [0, 0]], [[0, 3], [4, 6], [6, 7], [7, 9], [0, 0], [0, 0]]]
    )
    special = np.array([[1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 1]])
    words, begins = word_numbers(offsets, special)
    assert words.tolist() == [[-1, 1, 1, 2, 2, -1], [1, 2, 2, 2, -1, -1]]
    assert begins.astype(int).tolist() == [[0, 1, 0, 1, 0, 0], [1, 1, 0, 0, 0, 0]]
    mask = np.array([[1, 0, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0]], dtype=bool)
    assert spread_over_words(mask, words).astype(int).tolist() == [[0, 1, 1, 0, 0, 0], [0, 1, 1, 1, 0, 0]]
    nothing = np.full((1, 3), -1)
    assert not spread_over_words(np.ones((1, 3), dtype=bool), nothing).any()


@pytest.mark.parametrize("kind", KINDS)
def test_shares_of_masked_swapped_and_kept_tokens(kind, tokenizer):
    collate = DataCollatorForLanguageModeling(
        tokenizer, mlm_probability=0.5, mask_replace_prob=0.6, random_replace_prob=0.3, return_tensors=kind, seed=0
    )
    ids = np.full((100, 200), 7)
    batch = collate(list(ids))
    chosen = np.asarray(batch["labels"] != -100)
    inputs = np.asarray(batch["input_ids"])[chosen]
    assert np.asarray(batch["labels"])[chosen].tolist() == [7] * chosen.sum()
    assert chosen.mean() == pytest.approx(0.5, abs=0.02)
    assert (inputs == 4).mean() == pytest.approx(0.6 + 0.3 / 19, abs=0.02)
    assert (inputs == 7).mean() == pytest.approx(0.1 + 0.3 / 19, abs=0.02)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mlm_probability": None}, "mlm_probability=None; give"),
        ({"mlm_probability": 1.5}, r"mlm_probability=1\.5; give"),
        ({"mask_replace_prob": -0.1}, r"mask_replace_prob=-0\.1; give"),
        ({"mask_replace_prob": 0, "random_replace_prob": 1.1}, r"random_replace_prob=1\.1; give"),
        ({"mask_replace_prob": 0.8, "random_replace_prob": 0.3}, "sum to more than 1"),
        ({"mlm": False, "whole_word_mask": True}, "whole_word_mask=True needs mlm=True"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(options, said, tokenizer, theirs):
    with pytest.raises(ArgumentError, match=said):
        DataCollatorForLanguageModeling(tokenizer, **options)
    with pytest.raises(ValueError, match=r".+"):
        theirs.DataCollatorForLanguageModeling(tokenizer, **options)


def test_masking_needs_a_mask_token(make_tokenizer):
    bare = make_tokenizer(mask_token=None)
    with pytest.raises(ArgumentError, match="has none; set mlm=False"):
        DataCollatorForLanguageModeling(bare)
    assert DataCollatorForLanguageModeling(bare, mlm=False)([[5, 6]])["labels"].tolist() == [[5, 6]]


def test_padding_needs_a_pad_token(make_tokenizer):
    collate = DataCollatorForLanguageModeling(make_tokenizer(pad_token=None), mlm=False)
    assert collate([[5, 0], [6, 7]])["labels"].tolist() == [[5, 0], [6, 7]]
    with pytest.raises(DataError, match="no pad token"):
        collate([[5], [6, 7]])


def test_whole_words_need_offsets(tokenizer):
    options = {"whole_word_mask": True, "mask_replace_prob": 1, "random_replace_prob": 0}
    with pytest.raises(DataError, match="offset_mapping"):
        DataCollatorForLanguageModeling(tokenizer, **options)([[5, 6]])


def test_whole_words_say_what_they_set(tokenizer, caplog):
    with caplog.at_level(logging.WARNING, logger="surestep"):
        collate = DataCollatorForLanguageModeling(tokenizer, whole_word_mask=True)
    assert (collate.mask_replace_prob, collate.random_replace_prob) == (1, 0)
    assert "instead of 0.8 and 0.1" in caplog.text


def test_a_generator_needs_a_seed(tokenizer):
    with pytest.raises(ArgumentError, match="seed=None"):
        DataCollatorForLanguageModeling(tokenizer).create_rng()


@pytest.mark.parametrize(("used", "context"), [(False, "fork"), (True, "fork"), (True, "spawn")])
def test_each_worker_draws_from_its_own_seed(used, context, tokenizer):
    collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5, seed=11)
    rows = [[5] * 40] * 4
    if used:
        collate(rows[:1])
    loader = DataLoader(rows, 1, collate_fn=collate, num_workers=2, multiprocessing_context=context)
    labels = [batch["labels"] for batch in loader]
    for worker in range(2):
        alone = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5, seed=11 + worker)
        assert torch.equal(labels[worker], alone(rows[:1])["labels"])
        assert torch.equal(labels[worker + 2], alone(rows[:1])["labels"])


def test_masks_of_a_run_follow_from_seed_and_position(tokenizer):
    rows = [[5] * 40] * 22

    def labels(seed, done=0, workers=0, run=9):
        collate = DataCollatorForLanguageModeling(tokenizer, seed=seed)
        columns = ColumnFilter(collate, ModelColumns("Model", ()))
        loader = DataLoader(rows, 4, collate_fn=columns, num_workers=workers)
        return [batch["labels"].tolist() for batch in Reader(loader, seed=run).batches(0, done=done)]

    whole = labels(7)
    assert whole[0] != whole[1]
    assert labels(7, workers=2, done=2) == whole[2:]
    assert len({str(labels(8)), str(whole), str(labels(None)), str(labels(7, run=1))}) == 4


def test_it_pickles(tokenizer):
    collate = DataCollatorForLanguageModeling(tokenizer, seed=3)
    again = pickle.loads(pickle.dumps(collate))
    assert torch.equal(collate([[5] * 50])["labels"], again([[5] * 50])["labels"])


def test_an_overridden_masking_is_called(tokenizer):
    class Mine(DataCollatorForLanguageModeling):
        def torch_mask_tokens(self, inputs, special_tokens_mask=None, offset_mapping=None):
            return inputs, inputs + 100

    assert Mine(tokenizer)([[5, 6]])["labels"].tolist() == [[105, 106]]


def test_settings_are_the_originals(theirs):
    ours, original = (
        [(name, one.default) for name, one in inspect.signature(collator).parameters.items()]
        for collator in (DataCollatorForLanguageModeling, theirs.DataCollatorForLanguageModeling)
    )
    assert ours == original
