import inspect

import numpy as np
import pytest
import torch

from surestep.data.collators.permutation import DataCollatorForPermutationLanguageModeling
from surestep.errors import DataError

KINDS = ["pt", "np"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("options", [{}, {"plm_probability": 0.5}, {"max_span_length": 2}])
@pytest.mark.parametrize("named", [True, False])
def test_batches_are_the_originals(named, options, side, kind, make_tokenizer, theirs, both):
    tokenizer = make_tokenizer(side)
    rows = [[2, *range(5, 19), 3], [2, 6, 7, 8, 3], [5, 6, 7]]
    features = [{"input_ids": row} for row in rows] if named else rows
    options = {**options, "return_tensors": kind}
    batch = both(
        DataCollatorForPermutationLanguageModeling(tokenizer, **options),
        theirs.DataCollatorForPermutationLanguageModeling(tokenizer, **options),
        features,
        rounds=8,
    )
    assert batch["perm_mask"].shape == batch["target_mapping"].shape == (3, 16, 16)


@pytest.mark.parametrize("kind", KINDS)
def test_no_prediction_sees_itself_and_labels_are_the_masked(kind, tokenizer):
    collate = DataCollatorForPermutationLanguageModeling(tokenizer, return_tensors=kind, plm_probability=0.5)
    torch.manual_seed(0)
    batch = collate([list(range(5, 19))])
    masked = np.asarray(batch["input_ids"][0]) == 4
    assert masked.any()
    assert ((np.asarray(batch["labels"][0]) != -100) == masked).all()
    assert (np.asarray(batch["perm_mask"][0]).diagonal() == masked).all()
    assert not np.asarray(batch["perm_mask"][0])[:, ~masked].any()


def test_inputs_are_left_alone(tokenizer):
    ids = torch.arange(5, 19)[None]
    DataCollatorForPermutationLanguageModeling(tokenizer, plm_probability=0.9)([ids[0]])
    assert ids.tolist() == [list(range(5, 19))]


def test_a_tokenizer_without_padding_will_do(make_tokenizer):
    collate = DataCollatorForPermutationLanguageModeling(make_tokenizer(pad_token=None))
    assert collate([[5, 6]])["labels"].shape == (1, 2)


def test_what_it_needs(make_tokenizer, tokenizer):
    with pytest.raises(DataError, match="needs a mask token"):
        DataCollatorForPermutationLanguageModeling(make_tokenizer(mask_token=None))([[5, 6]])
    with pytest.raises(DataError, match="even number of tokens, and a batch has 3"):
        DataCollatorForPermutationLanguageModeling(tokenizer)([[5, 6, 7]])


def test_settings_are_the_originals(theirs):
    ours, original = (
        [(name, one.default) for name, one in inspect.signature(collator).parameters.items()]
        for collator in (DataCollatorForPermutationLanguageModeling, theirs.DataCollatorForPermutationLanguageModeling)
    )
    assert ours == original
