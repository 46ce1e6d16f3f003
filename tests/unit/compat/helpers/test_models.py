"""Questions about models and functions, asked of the original as well."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import BertConfig, BertForSequenceClassification
from transformers import trainer_pt_utils as their_pt_utils
from transformers import trainer_utils as their_utils

from surestep.compat.helpers import models as ours

# peft asks models of transformers by an older name.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")


@pytest.fixture
def bert() -> Any:
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=20,
            hidden_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=8,
            pad_token_id=0,
        )
    )


@pytest.mark.parametrize("types", [[], [nn.LayerNorm], [nn.Embedding, nn.Linear]])
@pytest.mark.parametrize("names", [None, [r"bias", r"layernorm"], [r"encoder\.layer\.0"]])
def test_parameter_names(bert: Any, types: list[Any], names: list[str] | None) -> None:
    assert ours.get_parameter_names(bert, types, names) == their_pt_utils.get_parameter_names(bert, types, names)


@pytest.mark.parametrize("trainable", [True, False])
def test_parameter_counts(bert: Any, trainable: bool) -> None:
    model = get_peft_model(bert, LoraConfig(r=2, target_modules=["query"]))

    assert ours.get_model_param_count(model, trainable) == their_pt_utils.get_model_param_count(model, trainable)


@pytest.mark.parametrize("name", ["BertLayer", "BertForSequenceClassification", "Dropout", "Nowhere"])
def test_classes_by_name(bert: Any, name: str) -> None:
    assert ours.get_module_class_from_name(bert, name) is their_pt_utils.get_module_class_from_name(bert, name)


@pytest.mark.parametrize("mixed", [True, False])
def test_adapters_come_off(bert: Any, mixed: bool) -> None:
    assert ours.unwrap_peft_model(bert) is bert
    assert not ours._is_peft_model(bert)
    model = get_peft_model(bert, LoraConfig(r=2, target_modules=["query"]), mixed=mixed)
    assert ours.unwrap_peft_model(model) is their_utils.unwrap_peft_model(model)
    assert ours._is_peft_model(model)


@pytest.mark.parametrize("targets", [r".*query", "a.query", ["query"], ["a.query"], [r".*q.*y"], ["nowhere"]])
@pytest.mark.parametrize("key", ["a.query", "a.key"])
@pytest.mark.parametrize("tell", [True, False])
def test_target_modules(targets: Any, key: str, tell: bool) -> None:
    assert ours.check_target_module_exists(targets, key, tell) == their_utils.check_target_module_exists(
        targets, key, tell
    )


@pytest.mark.parametrize(
    "function", [lambda: None, lambda a, b: None, partial(lambda a, b, c: None, 1, c=2), partial(max, 1)]
)
def test_counting_arguments(function: Any) -> None:
    answers = []
    for room in (ours, their_utils):
        try:
            answers.append(room.number_of_arguments(function))
        except ValueError as error:
            answers.append(type(error))

    assert answers[0] == answers[1]


LOWER = torch.tril(torch.ones(4, 4))
MASKS = {
    "none": None,
    "padding": torch.ones(2, 4),
    "lower": LOWER.expand(2, 4, 4),
    "heads": LOWER.expand(2, 3, 4, 4),
    "full": torch.ones(2, 4, 4),
    "additive": torch.triu(torch.full((4, 4), -1e9), 1).expand(2, 1, 4, 4),
    "one token": torch.ones(2, 1, 1),
    "vector": torch.ones(4),
}


@pytest.mark.parametrize("name", MASKS)
def test_causal_masks(name: str) -> None:
    assert ours.is_attention_mask_causal(MASKS[name]) is their_pt_utils.is_attention_mask_causal(MASKS[name])
