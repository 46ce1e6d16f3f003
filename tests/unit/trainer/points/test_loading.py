"""Loaders, samplers and columns, as the arguments say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from tests.small import Line, Points, quick
from torch import Tensor
from torch.utils.data import IterableDataset

from surestep import Trainer
from surestep.data.grouping import BatchRebalanceSampler, LengthGroupedSampler
from surestep.data.samplers import SeededRandomSampler, SequentialSampler
from surestep.errors import ArgumentError, DataError


class Texts(list):
    """12 samples of different length."""

    def __init__(self) -> None:
        super().__init__(
            {"x": torch.ones(3), "labels": torch.ones(1), "input_ids": [1] * size} for size in range(1, 13)
        )


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter(Points(10))


def sampler_of(trainer: Trainer) -> Any:
    return trainer._get_train_sampler()


# Samplers


@pytest.mark.parametrize(
    ("strategy", "kind"), [("random", torch.utils.data.RandomSampler), ("sequential", SequentialSampler)]
)
def test_the_sampler_of_a_strategy(tmp_path: Path, strategy: str, kind: type) -> None:
    assert isinstance(sampler_of(quick(tmp_path, train_sampling_strategy=strategy)), kind)


def test_the_random_order_follows_from_the_seed_and_the_epoch(tmp_path: Path) -> None:
    loader = quick(tmp_path, data_seed=7).get_train_dataloader()
    assert isinstance(loader.sampler, SeededRandomSampler)
    loader.sampler.set_epoch(3)

    assert list(loader.sampler) == torch.randperm(20, generator=torch.Generator().manual_seed(10)).tolist()


def test_lengths_are_grouped(tmp_path: Path) -> None:
    trainer = quick(
        tmp_path,
        train_dataset=Texts(),
        per_device_train_batch_size=3,
        gradient_accumulation_steps=2,
        train_sampling_strategy="group_by_length",
    )
    sampler = sampler_of(trainer)

    assert isinstance(sampler, LengthGroupedSampler)
    # Groups of a step, 3 times 2 samples, are sorted by length; the longest sample comes first of all.
    order = list(sampler)
    assert sorted(order) == list(range(12))
    assert order[0] == 11
    assert order[:6] == sorted(order[:6], reverse=True)


def test_evaluation_is_grouped_where_training_is(tmp_path: Path) -> None:
    grouped = quick(tmp_path, train_dataset=Texts(), train_sampling_strategy="group_by_length")

    assert isinstance(grouped._get_eval_sampler(Texts()), LengthGroupedSampler)
    assert isinstance(quick(tmp_path)._get_eval_sampler(Texts()), SequentialSampler)


def test_batches_are_balanced(tmp_path: Path) -> None:
    trainer = quick(
        tmp_path,
        train_dataset=Texts(),
        per_device_train_batch_size=3,
        gradient_accumulation_steps=2,
        train_sampling_strategy="batch_rebalance",
    )
    sampler = sampler_of(trainer)
    batches = list(sampler)

    assert isinstance(sampler, BatchRebalanceSampler)
    assert sorted(index for batch in batches for index in batch) == list(range(12))
    assert len(trainer.get_train_dataloader()) == 4


class Uneven(Points):
    """20 samples, 2 of them of the rare class; the model takes no weight."""

    column_names = ("x", "labels", "rare", "weight")

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return [self[number][index] for number in range(len(self))]
        rare = index >= 18
        return {**super().__getitem__(index), "rare": int(rare), "weight": 3.0 if rare else 0.0}


def drawn(tmp_path: Path, rule: str, **settings: Any) -> list[int]:
    trainer = quick(
        tmp_path,
        train_dataset=Uneven(),
        train_sampling_strategy="weighted",
        sampling_weights=rule,
        label_names=["rare"],
        remove_unused_columns=False,
        **settings,
    )
    sampler = sampler_of(trainer)
    assert len(sampler) == 20
    assert (
        list(sampler)
        == torch.multinomial(sampler.weights, 20, True, generator=torch.Generator().manual_seed(3)).tolist()
    )
    return [index for _ in range(200) for index in sampler]


def test_samples_are_drawn_by_the_weights_of_a_column(tmp_path: Path) -> None:
    assert set(drawn(tmp_path, "weight", data_seed=3)) == {18, 19}


def test_classes_are_drawn_as_often_as_each_other(tmp_path: Path) -> None:
    rare = sum(index >= 18 for index in drawn(tmp_path, "balanced", data_seed=3))
    assert 0.47 < rare / 4000 < 0.53


def test_weights_may_stand_in_a_column_that_the_model_does_not_take(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list([{"x": [1.0, 2.0, 3.0], "labels": [float(i)], "w": i % 2} for i in range(20)])
    settings = {"train_sampling_strategy": "weighted", "sampling_weights": "w"}
    loader = quick(tmp_path, train_dataset=rows.with_format("torch"), **settings).get_train_dataloader()
    batches = list(loader)

    assert len(batches) == 5
    assert all("w" not in batch and bool((batch["labels"] % 2 == 1).all()) for batch in batches)


def test_a_stream_is_not_drawn_from(tmp_path: Path) -> None:
    settings = {"train_sampling_strategy": "weighted", "sampling_weights": "balanced", "max_steps": 2}
    with pytest.raises(ArgumentError, match=r"sampling_weights='balanced' needs samples.*is a stream"):
        quick(tmp_path, train_dataset=Stream(), **settings).train()


def test_what_has_no_length_has_no_sampler(tmp_path: Path) -> None:
    trainer = quick(tmp_path, train_dataset=Stream(), max_steps=2)

    assert trainer._get_train_sampler() is None
    assert trainer._get_eval_sampler(Stream()) is None
    assert trainer._get_eval_sampler(None) is None
    assert trainer._get_train_sampler(Points(3)) is not None
    trainer.train()
    assert trainer.state.global_step == 2


# Loaders


def test_settings_reach_the_loader(tmp_path: Path) -> None:
    trainer = quick(tmp_path, eval_dataset=Points(10), per_device_eval_batch_size=3, dataloader_drop_last=True)

    assert len(trainer.get_train_dataloader()) == 5
    assert [len(batch["x"]) for batch in trainer.get_eval_dataloader()] == [3, 3, 3]
    assert trainer.num_examples(trainer.get_eval_dataloader()) == 10


def test_workers_feed_the_run(tmp_path: Path) -> None:
    settings = {
        "dataloader_num_workers": 1,
        "dataloader_prefetch_factor": 3,
        "dataloader_multiprocessing_context": "fork",
    }
    loader = quick(tmp_path, **settings).get_train_dataloader()

    assert (loader.num_workers, loader.prefetch_factor) == (1, 3)


def test_persistent_workers_keep_the_loaders_of_the_trainers_own_sets(tmp_path: Path) -> None:
    sets = {"one": Points(4), "other": Points(6)}
    kept = quick(tmp_path, eval_dataset=sets, dataloader_num_workers=1, dataloader_persistent_workers=True)

    one = kept.get_eval_dataloader("one")
    assert kept.get_eval_dataloader("one") is one
    assert kept.get_eval_dataloader("other") is not one
    assert kept.get_eval_dataloader(Points(4)) is not kept.get_eval_dataloader(Points(4))
    plain = quick(tmp_path, eval_dataset=Points(4))
    assert plain.get_eval_dataloader() is not plain.get_eval_dataloader()


def test_the_order_of_prediction_is_the_sets(tmp_path: Path) -> None:
    batches = list(quick(tmp_path).get_test_dataloader(Points(5)))

    assert torch.equal(torch.cat([batch["x"] for batch in batches]), Points(5).x)


def test_a_set_may_be_named_or_given(tmp_path: Path) -> None:
    trainer = quick(tmp_path, eval_dataset={"one": Points(4), "other": Points(6)})

    assert len(trainer.get_eval_dataloader("other").dataset) == 6
    assert len(trainer.get_eval_dataloader(Points(3)).dataset) == 3
    with pytest.raises(ArgumentError, match="no evaluation set called 'third'"):
        trainer.get_eval_dataloader("third")


# Columns


def table(**columns: Any) -> datasets.Dataset:
    usual = {"x": Points(4).x.tolist(), "labels": Points(4).y.tolist(), "text": ["a", "b", "c", "d"]}
    return datasets.Dataset.from_dict({**usual, **columns}).with_format("torch")


def test_columns_that_the_model_does_not_take_are_left_out(tmp_path: Path) -> None:
    trainer = quick(tmp_path, train_dataset=table(), max_steps=1)
    loader = trainer.get_train_dataloader()

    assert loader.dataset.column_names == ["x", "labels"]
    trainer.train()


def test_columns_are_kept_on_request(tmp_path: Path) -> None:
    seen: list[Any] = []

    def collate(samples: list[Any]) -> Any:
        seen.append(sorted(samples[0]))
        return {"x": torch.stack([sample["x"] for sample in samples])}

    trainer = quick(tmp_path, train_dataset=table(), remove_unused_columns=False, data_collator=collate)
    next(iter(trainer.get_train_dataloader()))
    plain = quick(tmp_path, train_dataset=Texts(), remove_unused_columns=False, data_collator=collate)
    next(iter(plain.get_train_dataloader()))

    assert seen == [["labels", "text", "x"], ["input_ids", "labels", "x"]]


def test_a_set_that_would_lose_its_labels_is_refused(tmp_path: Path) -> None:
    data = table().rename_column("labels", "target")

    with pytest.raises(DataError, match=r"no labels are left.*Rename the column that holds the labels to 'labels'"):
        quick(tmp_path, train_dataset=data).train()


def test_a_loss_of_ones_own_needs_no_labels_of_the_model(tmp_path: Path) -> None:
    class Own(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Tensor:
            return model(inputs["x"])["logits"].square().mean()

    data = table().rename_column("labels", "target")
    quick(tmp_path, Own, train_dataset=data, max_steps=1).train()


def test_a_set_to_predict_on_needs_no_labels(tmp_path: Path) -> None:
    unlabelled = table().remove_columns("labels")

    assert quick(tmp_path).predict(unlabelled).predictions.shape == (4, 1)


def test_the_columns_follow_the_model_and_not_its_wrapper(tmp_path: Path) -> None:
    class Wide(Line):
        def forward(self, x: Tensor, labels: Any = None, text: Any = None) -> Any:  # type: ignore[override]
            return super().forward(x, labels)

    trainer = quick(tmp_path, model=Wide(), train_dataset=table())
    trainer._set_signature_columns_if_needed()

    assert trainer._signature_columns == ["x", "labels", "text", "label", "label_ids"]
