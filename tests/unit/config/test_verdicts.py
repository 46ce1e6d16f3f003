"""What a resumed run is told of settings that are not what they were."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from surestep import Seq2SeqTrainingArguments, TrainingArguments
from surestep.config.fields import TOPICS, judges_of
from surestep.config.topics.seq2seq import SEQ2SEQ
from surestep.config.verdicts import Difference, Effect, Situation, differences
from surestep.errors import ArgumentError

JUDGES = judges_of((*TOPICS, SEQ2SEQ))


def judged(then: dict[str, Any], now: dict[str, Any], **options: Any) -> dict[str, Difference]:
    allowed = options.pop("allowed", ())
    found = differences(Situation(then, now, **options), JUDGES, allowed)
    return {one.name: one for one in found}


@pytest.mark.parametrize("topic", [*TOPICS, SEQ2SEQ], ids=lambda topic: topic.fields.__name__)
def test_every_setting_has_a_verdict(topic: Any) -> None:
    """A new setting gets one in its topic: is another value on resume harmless, or does it change the mathematics?"""
    assert set(topic.resumed) == {field.name for field in dataclasses.fields(topic.fields)}


def test_the_topics_hold_all_settings() -> None:
    assert JUDGES.keys() == {field.name for field in dataclasses.fields(Seq2SeqTrainingArguments) if field.init}


@pytest.mark.parametrize(
    ("name", "then", "now", "effect"),
    [
        ("output_dir", "a", "b", Effect.HARMLESS),
        ("logging_steps", 1, 2, Effect.HARMLESS),
        ("dataloader_num_workers", 0, 2, Effect.HARMLESS),
        ("eval_steps", 5, 10, Effect.MATHEMATICS),
        ("learning_rate", 1e-3, 1e-4, Effect.NONE),
        ("max_grad_norm", 1.0, 0.5, Effect.MATHEMATICS),
        ("bf16", False, True, Effect.MATHEMATICS),
        ("optim", "adamw_torch", "adamw_torch_fused", Effect.MATHEMATICS),
        ("optim", "adamw_torch", "sgd", Effect.REFUSED),
        ("lr_scheduler_type", "linear", "cosine", Effect.MATHEMATICS),
        ("lr_scheduler_type", "linear", "reduce_lr_on_plateau", Effect.REFUSED),
        ("per_device_train_batch_size", 4, 8, Effect.MATHEMATICS),
        ("a_setting_of_a_subclass", 1, 2, Effect.MATHEMATICS),
    ],
)
def test_verdicts(name: str, then: Any, now: Any, effect: Effect) -> None:
    found = judged({name: then}, {name: now})

    assert [(one.then, one.now, one.verdict.effect) for one in found.values()] == [(then, now, effect)]


def test_a_step_of_as_many_samples_is_the_same_step() -> None:
    then = {"global_batch_size": 16, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    now = {"global_batch_size": 16, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}

    assert {one.verdict.effect for one in judged(then, now).values()} == {Effect.HARMLESS}
    assert judged(then, {**now, "global_batch_size": 32})["gradient_accumulation_steps"].verdict.effect is (
        Effect.MATHEMATICS
    )


@pytest.mark.parametrize(
    ("then", "now", "within_epoch", "effect"),
    [
        ({"seed": 1}, {"seed": 2}, True, Effect.REFUSED),
        ({"seed": 1}, {"seed": 2}, False, Effect.MATHEMATICS),
        ({"seed": 1, "data_seed": 7}, {"seed": 2, "data_seed": 7}, True, Effect.MATHEMATICS),
        ({"seed": 1}, {"seed": 2, "ignore_data_skip": True}, True, Effect.MATHEMATICS),
    ],
)
def test_another_order_of_the_samples_is_refused_within_an_epoch(
    then: dict[str, Any], now: dict[str, Any], within_epoch: bool, effect: Effect
) -> None:
    assert judged(then, now, within_epoch=within_epoch)["seed"].verdict.effect is effect


def test_what_is_refused_may_be_allowed_by_name() -> None:
    then, now = {"seed": 1, "optim": "adamw_torch"}, {"seed": 2, "optim": "sgd"}

    refused = judged(then, now, within_epoch=True, allowed=["seed"])
    assert [name for name, one in refused.items() if one.refused] == ["optim"]
    assert not any(one.refused for one in judged(then, now, within_epoch=True, allowed=["all"]).values())


def test_secrets_are_not_compared() -> None:
    assert judged({"hub_token": "a"}, {"hub_token": "b"}) == {}


def test_names_to_allow_are_settings() -> None:
    assert TrainingArguments("out", resume_allow="seed").resume_allow == ["seed"]
    assert TrainingArguments("out", resume_allow=["train_dataset", "all"]).resume_allow == ["train_dataset", "all"]
    with pytest.raises(ArgumentError, match=r"resume_allow has 'seeds', which is no setting.*seed"):
        TrainingArguments("out", resume_allow=["seeds"])
