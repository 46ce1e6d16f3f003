"""Counting items, and finding out what a model's loss does with the count."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from surestep import CrossEntropyLoss
from surestep.losses.items import (
    ItemUse,
    accepts_count,
    count_items,
    function_takes_count,
    probe_item_use,
    undisturbed,
)

LABELS = torch.tensor([[5, -100, 7, 8], [-100, 6, 9, -100]])


# Counting


@pytest.mark.parametrize(
    ("batches", "shifted", "count"),
    [
        ([{"labels": LABELS}], False, 5),
        # The first of each row is nobody's target: one 5 less, and one -100.
        ([{"labels": LABELS}], True, 4),
        ([{"labels": LABELS}, {"labels": LABELS}], True, 8),
        ([{"labels": torch.tensor([1, 0, -100])}], False, 2),
        # What a collator has shifted already is counted as it is.
        ([{"labels": LABELS, "shift_labels": LABELS}], True, 5),
        ([{"shift_labels": LABELS}, {"labels": LABELS}], True, 9),
        ([{"labels": torch.tensor([0.5, 1.5])}], False, 2),
        ([{"labels": [1, 2]}], False, None),
        ([{"x": LABELS}], False, None),
        ([{"labels": LABELS}, {"x": LABELS}], False, None),
        ([], False, None),
    ],
    ids=["plain", "shifted", "two", "classes", "shift_labels", "mixed", "floats", "list", "none", "some", "empty"],
)
def test_the_labels_of_a_step_are_counted(batches: list[Any], shifted: bool, count: int | None) -> None:
    found = count_items(batches, shifted=shifted)

    assert (None if found is None else int(found)) == count
    assert found is None or isinstance(found, Tensor)


# Declared or guessed


class Plain(nn.Module):
    def forward(self, x: Any, labels: Any = None) -> Any: ...


class Open(nn.Module):
    def forward(self, x: Any, labels: Any = None, **kwargs: Any) -> Any: ...


class Declared(Plain):
    accepts_loss_kwargs = True


class Denied(Open):
    accepts_loss_kwargs = False


@pytest.mark.parametrize(("kind", "accepts"), [(Plain, False), (Open, True), (Declared, True), (Denied, False)])
def test_a_declaration_goes_before_the_signature(kind: Any, accepts: bool) -> None:
    assert accepts_count(kind()) is accepts


class Module(nn.Module):
    def forward(self, outputs: Any, labels: Any) -> Any: ...


class Counting(Module):
    def forward(self, outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any: ...


def bare(outputs: Any, labels: Any) -> Any: ...


def counting(outputs: Any, labels: Any, num_items_in_batch: Any) -> Any: ...


def any_keyword(outputs: Any, labels: Any, **kwargs: Any) -> Any: ...


@pytest.mark.parametrize(
    ("function", "takes"),
    [
        (bare, False), (counting, True), (any_keyword, True), (partial(counting, labels=1), True), (Module(), False),
        (Counting(), True), (Module().forward, False), (CrossEntropyLoss(), True), (divmod, False),
    ],
)  # fmt: skip
def test_a_function_says_whether_it_takes_the_count(function: Any, takes: bool) -> None:
    assert function_takes_count(function) is takes


# Asking the model

TINY = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def bert(kind: Any) -> Any:
    return kind(BertConfig(**TINY, max_position_embeddings=16))


def tiny_t5() -> Any:
    return T5ForConditionalGeneration(
        T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    )


def gpt2() -> Any:
    return GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=16))


def llama() -> Any:
    return LlamaForCausalLM(LlamaConfig(**TINY, num_key_value_heads=2))


TOKENS = torch.randint(1, 20, (2, 4), generator=torch.Generator().manual_seed(0))


def probed(model: Any, batch: dict[str, Any]) -> ItemUse:
    def loss_of(count: Any) -> Tensor:
        outputs = model(**batch) if count is None else model(**batch, num_items_in_batch=count)
        return outputs["loss"]

    with undisturbed(model):
        return probe_item_use(loss_of, batch)


@pytest.mark.parametrize("make", [gpt2, llama])
def test_causal_models_of_transformers_divide_by_the_shifted_count(make: Any) -> None:
    assert probed(make(), {"input_ids": TOKENS, "labels": LABELS}) == ItemUse(used=True, shifted=True)


def test_a_classifier_that_takes_keywords_and_ignores_the_count_is_found_out() -> None:
    # The original believes the signature here and scales the loss wrongly.
    model = bert(BertForSequenceClassification)
    use = probed(model, {"input_ids": TOKENS, "labels": torch.tensor([0, 1])})

    assert accepts_count(model)
    assert not use.used


@pytest.mark.parametrize(
    "make",
    [lambda: bert(BertForMaskedLM), lambda: bert(BertForTokenClassification), tiny_t5],
    ids=["masked", "tags", "encoder-decoder"],
)
def test_what_is_found_is_what_the_model_does(make: Any) -> None:
    model, batch = make(), {"input_ids": TOKENS, "labels": LABELS.clamp(max=1)}
    use = probed(model, batch)
    with torch.no_grad():
        model.eval()
        plain, counted = model(**batch).loss, None
        if accepts_count(model):
            counted = model(**batch, num_items_in_batch=torch.tensor(10)).loss

    divides = counted is not None and counted.item() == pytest.approx(plain.item() * 5 / 10, rel=1e-4)
    assert use == ItemUse(used=divides, shifted=False if divides else None)


class Summed(nn.Module):
    """A user's model whose loss divides by the count, after a shift if it shifts."""

    def __init__(self, shift: bool = False, factor: float = 1.0) -> None:
        super().__init__()
        self.scores, self.shift, self.factor = nn.Embedding(20, 20), shift, factor

    def forward(self, input_ids: Tensor, labels: Tensor, num_items_in_batch: Any = None, **_: Any) -> dict[str, Tensor]:
        logits = self.scores(input_ids)
        if self.shift:
            logits, labels = logits[:, :-1], labels[:, 1:]
        total = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
        items = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch * self.factor
        return {"loss": total / items}


@pytest.mark.parametrize("shift", [False, True])
def test_a_users_model_is_asked(shift: bool) -> None:
    assert probed(Summed(shift), {"input_ids": TOKENS, "labels": LABELS}) == ItemUse(used=True, shifted=shift)


def test_equal_counts_tell_of_no_shift() -> None:
    # Every row begins with -100, so that the shift loses none.
    labels = LABELS.clone()
    labels[:, 0] = -100

    assert probed(Summed(), {"input_ids": TOKENS, "labels": labels}) == ItemUse(used=True, shifted=None)


def test_a_count_that_is_ignored_tells_of_no_shift() -> None:
    assert probe_item_use(lambda _: torch.tensor(1.5), {"labels": LABELS}) == ItemUse(used=False)


def test_a_division_of_no_known_form_is_taken_as_none() -> None:
    assert not probed(Summed(factor=1.7), {"input_ids": TOKENS, "labels": LABELS}).used


@pytest.mark.parametrize("labels", [torch.full((2, 4), -100), [1, 2]], ids=["ignored", "list"])
def test_a_batch_without_a_countable_label_tells_nothing(labels: Any) -> None:
    def never(count: Any) -> Tensor:
        raise AssertionError("nothing to learn from such a batch")

    assert probe_item_use(never, {"labels": labels}) == ItemUse(used=False)


def test_a_loss_of_zero_tells_nothing() -> None:
    assert probe_item_use(lambda _: torch.tensor(0.0), {"labels": LABELS}) == ItemUse(used=False)


def test_looking_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model[2].eval()
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    modes = [module.training for module in model.modules()]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with undisturbed(model):
        assert not torch.is_grad_enabled()
        assert not any(module.training for module in model.modules())
        model(torch.randn(6, 4))

    assert [module.training for module in model.modules()] == modes == [True, True, True, False]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert torch.is_grad_enabled()


def test_a_look_that_fails_changes_nothing_either() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), undisturbed(model):
        model(torch.ones(3))

    assert model.training
    assert torch.is_grad_enabled()
