"""Mistakes in data and labels are errors before the first step, each with the setting to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from tests.small import Points, line, quick
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification

from surestep import Trainer, TrainerCallback
from surestep.errors import ArgumentError, DataError, ModelError


class Began(TrainerCallback):
    """Notes whether training began, and whether a step was done."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("begin")

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("step")


def bert(kind: type = BertForSequenceClassification, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    return kind(BertConfig(**sizes, intermediate_size=8, **{"num_labels": 3, **more}))


def rows(labels: list[Any]) -> list[dict[str, Any]]:
    return [{"input_ids": [1, 2, 3], "labels": label} for label in labels]


def table(labels: list[Any], name: str = "labels") -> datasets.Dataset:
    return datasets.Dataset.from_dict({"input_ids": [[1, 2, 3]] * len(labels), name: labels})


TOO_LARGE = (
    r"A label is 3, and the model has the classes 0 to 2\. Count classes from 0, make the model with num_labels=4"
)
EVALUATES = {"eval_strategy": "epoch"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        # The last row of many: no first batch holds it.
        ({"train_dataset": table([0, 1, 2] * 20 + [3])}, f"train_dataset: {TOO_LARGE}"),
        ({"train_dataset": table([0, 1, 3], "label")}, TOO_LARGE),
        ({"train_dataset": table([0, -1, -100])}, r"A label is -1.*Count classes from 0, and mark"),
        ({"train_dataset": table([0, 1]), "eval_dataset": table([0, 3]), **EVALUATES}, f"eval_dataset: {TOO_LARGE}"),
        (
            {"train_dataset": table([0, 1]), "eval_dataset": {"de": table([0, 3])}, **EVALUATES},
            rf"eval_dataset\['de'\]: {TOO_LARGE}",
        ),
        (
            {"model": bert(BertForTokenClassification), "train_dataset": table([[0, 1, -100], [-100, 3, 2]])},
            TOO_LARGE,
        ),
        ({"train_dataset": table([])}, r"train_dataset is empty\. Give it at least one sample"),
        ({"train_dataset": table([0]), "eval_dataset": table([]), **EVALUATES}, r"eval_dataset is empty\. Give it at"),
        (
            {"train_dataset": Points(4), "model": line(), "eval_dataset": {"x": Points(0)}, **EVALUATES},
            r"eval_dataset\['x'\] is empty.*eval_strategy='no'",
        ),
        ({"train_dataset": table([0, 1], "target")}, r"no labels are left.*Rename the column"),
    ],
)
def test_what_is_wrong_with_a_set_is_told_before_training_begins(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    began = Began()
    trainer = quick(tmp_path, **{"model": bert(), "callbacks": [began], **settings})
    with pytest.raises(DataError, match=message):
        trainer.train()
    assert began.events == []


def test_labels_of_samples_that_come_one_by_one_are_looked_at_in_the_first_step(tmp_path: Path) -> None:
    began = Began()
    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "callbacks": [began]}
    trainer = quick(tmp_path, model=bert(), train_dataset=rows([0, 1, 2, 3]), **settings)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(DataError, match=f"train_dataset: {TOO_LARGE}"):
        trainer.train()
    assert began.events == ["begin"]
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


class Own(Trainer):
    """Maps labels to classes itself."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        inputs = {**inputs, "labels": inputs["labels"] % 3}
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


def shifted(samples: list[Any]) -> dict[str, Any]:
    return {
        name: torch.tensor([sample[name] for sample in samples]) % (3 if name == "labels" else 20)
        for name in samples[0]
    }


def transformed(labels: list[int]) -> datasets.Dataset:
    return table(labels).with_transform(lambda batch: {**batch, "labels": [label % 3 for label in batch["labels"]]})


@pytest.mark.parametrize(
    "settings",
    [
        {"train_dataset": table([0, 1, 2, -100])},
        {"train_dataset": table([3, 4, 5]), "kind": Own},
        {"train_dataset": rows([3, 4, 5]), "kind": Own},
        {"train_dataset": table([3, 4, 5]), "data_collator": shifted},
        {"train_dataset": transformed([3, 4, 5])},
        {"train_dataset": table([3, 1, 2]).select([1, 2])},
        {"train_dataset": table([0.5, 7.5]), "model": bert(num_labels=1)},
        {"train_dataset": table([[0.0, 1.0, 7.0]]), "model": bert()},
    ],
    ids=["ignored", "own loss", "own loss one by one", "collator", "transform", "selected", "regression", "several"],
)
def test_labels_that_the_loss_can_take_are_no_mistake(tmp_path: Path, settings: dict[str, Any]) -> None:
    trainer = quick(tmp_path, **{"model": bert(), **settings})
    trainer.train()
    assert trainer.state.global_step == 1


def test_a_frozen_model_has_nothing_to_train(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Every parameter of Line is frozen"):
        quick(tmp_path, model=line().requires_grad_(False)).train()


def test_an_optimizer_that_holds_nothing_of_the_model(tmp_path: Path) -> None:
    other = torch.optim.SGD(line().parameters(), lr=0.1)
    with pytest.raises(ArgumentError, match=r"optimizers: The optimizer holds none of the model's parameters"):
        quick(tmp_path, optimizers=(other, None)).train()


def test_a_loss_of_ones_own_may_know_why_the_optimizer_holds_nothing_of_the_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def loss(outputs: Any, labels: Any) -> Any:
        return nn.functional.mse_loss(outputs["logits"], labels)

    other = torch.optim.SGD(line().parameters(), lr=0.1)
    quick(tmp_path, optimizers=(other, None), compute_loss_func=loss).train()

    assert "holds none of the model's parameters" in caplog.text
