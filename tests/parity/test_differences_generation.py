"""What evaluation by generation does otherwise than in the original, on purpose: both sides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

from tests.parity.differences import shows
from tests.parity.models import IGNORED
from tests.parity.sequences import END, OURS, PAD, THEIRS, Collator, Pairs, Sources, bart, by_hand, t5, tokenizer

SIDES = [THEIRS, OURS]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Any]:
    """Return a function that makes a trainer of one side around a model."""

    def trainer(side: Any, model: Any = None, arguments: dict[str, Any] | None = None, **options: Any) -> Any:
        torch.manual_seed(3)
        common = {"output_dir": str(tmp_path / "run"), "use_cpu": True, "disable_tqdm": True, "report_to": "none"}
        sizes = {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "save_strategy": "no"}
        args = side.TrainingArguments(**{**common, **sizes, "predict_with_generate": True, **(arguments or {})})
        built = model() if model is not None else None
        options = {"data_collator": Collator(built), "processing_class": tokenizer(), **options}
        return side.Trainer(built, args, **{"train_dataset": Pairs(), **options})

    return trainer


def batches(trainer: Any) -> Iterator[Any]:
    return iter(trainer.get_test_dataloader(Pairs(8)))


def few_positions() -> nn.Module:
    model: nn.Module = transformers.BartForConditionalGeneration(
        transformers.BartConfig(
            vocab_size=24, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=16,
            forced_eos_token_id=None, eos_token_id=23,
        )
    )  # fmt: skip
    return model


@shows("G1")
@pytest.mark.filterwarnings("ignore:Using the model-agnostic default `max_length`:UserWarning")
def test_without_a_length_every_batch_is_what_the_model_generates(make: Any) -> None:
    kept = {"eval_do_concat_batches": False}
    theirs, ours = (make(side, t5, kept) for side in SIDES)
    before = ours.model.generation_config.to_dict()
    widths = [[batch.shape[1] for batch in trainer.predict(Pairs(8)).predictions] for trainer in (theirs, ours)]
    assert widths == [[21, 20], [21, 21]]
    assert theirs.model.generation_config.max_length == 20
    assert ours.model.generation_config.to_dict() == before
    alone = [by_hand(t5_again(), batch).numpy() for batch in batches(ours)]
    assert np.array_equal(np.concatenate(alone), np.concatenate(ours.predict(Pairs(8)).predictions))

    short = [make(side, few_positions) for side in SIDES]
    with pytest.raises(IndexError):
        short[0].predict(Pairs(8))
    assert short[1].predict(Pairs(8)).predictions.shape == (8, 20)

    told = [make(side, t5, {"generation_max_length": 20}).predict(Pairs(8)).predictions for side in SIDES]
    assert np.array_equal(*told)


def t5_again() -> nn.Module:
    torch.manual_seed(3)
    return t5()


@shows("G2")
def test_the_loss_beside_generation_is_that_of_compute_loss(make: Any) -> None:
    def twice(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        return 2 * nn.functional.cross_entropy(outputs["logits"].flatten(0, 1), labels.flatten())

    losses = {}
    for side in SIDES:
        for generates in (True, False):
            arguments = {"predict_with_generate": generates, "generation_max_length": 6}
            trainer = make(side, t5, arguments, compute_loss_func=twice, compute_metrics=lambda prediction: {"n": 1.0})
            losses[side is OURS, generates] = trainer.evaluate(Pairs(8))["eval_loss"]
    plain = make(OURS, t5, {"generation_max_length": 6}).evaluate(Pairs(8))["eval_loss"]
    assert losses[False, True] == pytest.approx(plain, rel=1e-6)
    for key in ((False, False), (True, False), (True, True)):
        assert losses[key] == pytest.approx(2 * plain, rel=1e-6)


@shows("G3")
def test_settings_of_an_evaluation_reach_each_of_its_sets(make: Any) -> None:
    widths: dict[bool, list[int]] = {}
    for side in SIDES:
        seen = widths.setdefault(side is OURS, [])

        def count(prediction: Any, seen: list[int] = seen) -> dict[str, float]:
            seen.append(prediction.predictions.shape[1])
            return {}

        sets = {"one": Pairs(4), "two": Pairs(4, seed=6)}
        trainer = make(side, t5, {"generation_max_length": 22}, eval_dataset=sets, compute_metrics=count)
        trainer.evaluate(max_length=25)
        trainer.evaluate()
    assert widths == {False: [22] * 4, True: [25, 25, 22, 22]}


class Stops(nn.Module):
    """Generates as many tokens as the batch's first token says."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(24))
        self.config = SimpleNamespace(pad_token_id=PAD)
        self.generation_config = transformers.GenerationConfig(max_length=2)

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        return {"loss": self.weight.sum(), "logits": self.weight[input_ids]}

    def generate(self, input_ids: Tensor, **kwargs: Any) -> Tensor:
        return torch.full((len(input_ids), int(input_ids[0, 0])), END)


def lengths(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    return {"input_ids": torch.tensor([sample["input_ids"][:3] for sample in samples])}


@shows("G4")
def test_batches_of_different_lengths_can_be_decoded(make: Any) -> None:
    theirs, ours = (make(side, Stops, data_collator=lengths).predict(Sources(12)).predictions for side in SIDES)
    assert theirs.shape == ours.shape
    assert (theirs == IGNORED).any()
    assert np.array_equal(np.where(theirs == IGNORED, PAD, theirs), ours)
    with pytest.raises(OverflowError):
        tokenizer().batch_decode(theirs)
    assert len(tokenizer().batch_decode(ours)) == 12

    as_there = make(SimpleNamespace(**{**vars(OURS), "Trainer": Joining}), Stops, data_collator=lengths)
    assert np.array_equal(as_there.predict(Sources(12)).predictions, theirs)


class Joining(OURS.Trainer):  # type: ignore[name-defined,misc]
    def _prediction_padding(self) -> int:
        return IGNORED


@shows("G5")
def test_a_model_made_anew_has_the_generation_settings(make: Any) -> None:
    settings = transformers.GenerationConfig(max_length=9, decoder_start_token_id=PAD)
    found = {}
    for side in SIDES:
        options = {"model_init": t5, "data_collator": Collator()}
        trainer = make(side, None, {"generation_config": settings, "max_steps": 1}, **options)
        trainer.train()
        found[side is OURS] = trainer.model.generation_config.max_length
    assert found == {False: None, True: 9}


@shows("G6")
def test_sortish_sampler_groups_by_length(make: Any) -> None:
    def order(side: Any, **arguments: Any) -> list[int]:
        trainer = make(side, t5, arguments, train_dataset=Pairs(200))
        return [len(row) for batch in trainer.get_train_dataloader() for row in batch["input_ids"]]

    def padding(side: Any, **arguments: Any) -> int:
        trainer = make(side, t5, arguments, train_dataset=Pairs(200))
        return sum(int((batch["attention_mask"] == 0).sum()) for batch in trainer.get_train_dataloader())

    assert padding(THEIRS, sortish_sampler=True) == padding(THEIRS)
    assert padding(OURS, sortish_sampler=True) < padding(OURS)
    grouped = {"train_sampling_strategy": "group_by_length"}
    assert order(OURS, sortish_sampler=True) == order(OURS, **grouped)
    evaluated = make(OURS, t5, {"sortish_sampler": True}).get_eval_dataloader(Pairs(8))
    assert list(evaluated.sampler) == list(range(8))


@shows("G7")
def test_samples_without_labels_are_predicted(make: Any) -> None:
    theirs, ours = (make(side, t5, {"generation_max_length": 6}) for side in SIDES)
    with pytest.raises(ValueError, match="exactly one of input_ids"):
        theirs.predict(Sources(8))
    output = ours.predict(Sources(8))
    assert output.label_ids is None
    assert np.array_equal(output.predictions, ours.predict(Pairs(8)).predictions)


class Own(Stops):
    """A model of one's own: no settings, and a `generate` that names what it takes."""

    def __init__(self) -> None:
        super().__init__()
        del self.generation_config

    def generate(self, input_ids: Tensor, max_length: int = 3) -> Tensor:  # type: ignore[override]
        return input_ids[:, :max_length]


class Mute(nn.Module):
    """A model that does not generate."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(24))

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        return {"logits": self.weight[input_ids]}


@shows("G8")
def test_any_model_that_generates_will_do(make: Any) -> None:
    options = {"data_collator": lengths}
    theirs, ours = (make(side, Own, **options) for side in SIDES)
    with pytest.raises(TypeError, match="synced_gpus"):
        theirs.predict(Sources(8))
    assert ours.predict(Sources(8)).predictions.shape == (8, 3)
    assert ours.predict(Sources(8), max_length=2).predictions.shape == (8, 2)
    with pytest.raises(ValueError, match=r"takes no num_beams=4; it takes \(input_ids, max_length\)"):
        ours.predict(Sources(8), num_beams=4)

    with pytest.raises(AttributeError, match="generate"):
        make(THEIRS, Mute, **options).predict(Sources(8))
    with pytest.raises(ValueError, match="Mute has no method generate"):
        make(OURS, Mute, **options)
    assert make(OURS, Mute, {"predict_with_generate": False}, **options).predict(Sources(8)).predictions.shape == (8, 3)


@shows("G9")
def test_settings_that_cannot_be_saved_are_found_before_the_first_step(make: Any) -> None:
    def contradictory() -> nn.Module:
        model = bart()
        model.generation_config.num_beams, model.generation_config.length_penalty = 1, 2.0
        return model

    steps = {}
    for side in SIDES:
        trainer = make(side, contradictory, {"save_strategy": "steps", "save_steps": 2, "max_steps": 3})
        with pytest.raises(ValueError, match="length_penalty"):
            trainer.train()
        steps[side is OURS] = trainer.state.global_step
    assert steps == {False: 2, True: 0}
    assert make(OURS, contradictory, {"max_steps": 1}).train().global_step == 1
