"""The trainer that generates: what it calls, what it pads, what it refuses."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tests.parity.models import IGNORED
from tests.parity.sequences import END, PAD, Pairs, Sources, bart, by_hand, t5, tokenizer, words
from torch import Tensor, nn

from surestep import HfArgumentParser, Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainingArguments
from surestep.data.collators.seq2seq import DataCollatorForSeq2Seq
from surestep.errors import ArgumentError

PAIRS = Pairs(8)


def wordy(model: Any = bart) -> Any:
    """Return a model that does not end its answers at once."""
    torch.manual_seed(3)
    built = model()
    built.generation_config.min_length = 4
    return built


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Any]:
    """Return a function that makes a trainer."""

    def trainer(model: Any = None, kind: type = Seq2SeqTrainer, objects: Any = None, **arguments: Any) -> Any:
        built = wordy() if model is None else model
        defaults = {"use_cpu": True, "disable_tqdm": True, "per_device_eval_batch_size": 4, "save_strategy": "no"}
        args = Seq2SeqTrainingArguments(
            str(tmp_path / "run"), **{**defaults, "predict_with_generate": True, "max_steps": 2, **arguments}
        )
        given = {
            "data_collator": DataCollatorForSeq2Seq(tokenizer(), built),
            "processing_class": tokenizer(),
            "train_dataset": PAIRS,
            **(objects or {}),
        }
        return kind(built, args, **given)

    return trainer


def whole(trainer: Any) -> Any:
    return trainer.data_collator([PAIRS[number] for number in range(8)])


# Construction


def test_without_arguments_there_are_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = Seq2SeqTrainer(t5())
    assert type(trainer.args) is Seq2SeqTrainingArguments
    assert trainer.args.output_dir == "tmp_trainer"


def test_arguments_that_say_nothing_of_generation_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="args of TrainingArguments, which say nothing of generation"):
        Seq2SeqTrainer(t5(), TrainingArguments(str(tmp_path)))


def test_arguments_of_the_original_are_taken(tmp_path: Path) -> None:
    theirs = transformers.Seq2SeqTrainingArguments(
        str(tmp_path), predict_with_generate=True, generation_num_beams=2, report_to="none", use_cpu=True
    )
    trainer = Seq2SeqTrainer(t5(), theirs, processing_class=tokenizer())
    assert trainer.args.generation_num_beams == 2


def test_the_older_name_of_the_processing_class(tmp_path: Path) -> None:
    words = tokenizer()
    with pytest.warns(FutureWarning, match="processing_class"):
        trainer = Seq2SeqTrainer(t5(), Seq2SeqTrainingArguments(str(tmp_path), use_cpu=True), tokenizer=words)
    assert trainer.processing_class is words


def test_generation_settings_are_saved_with_the_model_and_read_again(make: Any, tmp_path: Path) -> None:
    settings = transformers.GenerationConfig(num_beams=2, max_length=9, decoder_start_token_id=PAD)
    trainer = make(t5(), generation_config=settings, save_strategy="steps", save_steps=1)
    trainer.train()
    checkpoint = tmp_path / "run" / "checkpoint-2"
    assert json.loads((checkpoint / "generation_config.json").read_text())["num_beams"] == 2
    args = Seq2SeqTrainingArguments.load_json(checkpoint / "training_args.json")
    again = make(generation_config=args.generation_config)
    assert again.model.generation_config.max_length == 9
    from_folder = make(generation_config=str(checkpoint))
    assert from_folder.model.generation_config.max_length == 9


def test_two_orders_of_samples_are_refused(make: Any) -> None:
    with pytest.raises(ArgumentError, match=r'sortish_sampler=True and train_sampling_strategy="sequential"'):
        make(sortish_sampler=True, train_sampling_strategy="sequential")


def test_the_command_line() -> None:
    given = "--output_dir out --predict_with_generate --generation_max_length 9 --generation_num_beams 2"
    (args,) = HfArgumentParser(Seq2SeqTrainingArguments).parse_args_into_dataclasses(
        [*given.split(), "--generation_config", "folder", "--sortish_sampler"], look_for_args_file=False
    )
    found = (
        args.predict_with_generate,
        args.generation_max_length,
        args.generation_num_beams,
        str(args.generation_config),
    )
    assert found == (True, 9, 2, "folder")
    assert args.sortish_sampler


# What is generated


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3, "length_penalty": 0.3}, {"max_new_tokens": 4}])
def test_predictions_are_what_the_model_generates(make: Any, settings: dict[str, Any]) -> None:
    trainer = make(
        per_device_eval_batch_size=8, **({} if "max_new_tokens" in settings else {"generation_max_length": 6})
    )
    predictions = trainer.predict(PAIRS, **settings).predictions
    given = settings if "max_new_tokens" in settings else {"max_length": 6, **settings}
    alone = by_hand(trainer.model, whole(trainer), **given).numpy()
    assert (alone[:, 1] > END).all(), "something is generated"
    assert np.array_equal(predictions[:, : alone.shape[1]], alone)
    assert (predictions[:, alone.shape[1] :] == PAD).all()


class Recording(nn.Module):
    """A model of one's own that notes what it is asked to generate from."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(24))
        self.config = SimpleNamespace(**config)
        self.generation_config = transformers.GenerationConfig(max_length=5)
        self.calls: list[dict[str, Any]] = []
        self.modes: list[bool] = []

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Any = None) -> dict[str, Tensor]:
        return {"loss": self.weight.sum(), "logits": self.weight[input_ids]}

    def generate(self, **given: Any) -> Any:
        self.calls.append(given)
        self.modes.append(self.training or torch.is_grad_enabled())
        return SimpleNamespace(sequences=given["input_ids"][:, :3])


NOT_SET = {"synced_gpus": False}


@pytest.mark.parametrize(
    ("arguments", "given", "asked"),
    [
        ({}, {}, NOT_SET),
        ({"generation_max_length": 7, "generation_num_beams": 2}, {}, {**NOT_SET, "max_length": 7, "num_beams": 2}),
        ({"generation_max_length": 7}, {"max_length": 9, "num_beams": None}, {**NOT_SET, "max_length": 9}),
        ({"generation_max_length": 7}, {"max_new_tokens": 9}, {**NOT_SET, "max_new_tokens": 9}),
        ({"generation_num_beams": 2}, {"num_beams": 1}, {**NOT_SET, "num_beams": 1}),
        ({}, {"synced_gpus": True, "do_sample": True}, {"synced_gpus": True, "do_sample": True}),
    ],
)
@pytest.mark.parametrize("way", ["predict", "evaluate"])
def test_settings_that_reach_generate(
    make: Any, way: str, arguments: dict[str, Any], given: dict[str, Any], asked: dict[str, Any]
) -> None:
    model = Recording()
    trainer = make(model, objects={"compute_metrics": lambda prediction: {}}, **arguments)
    getattr(trainer, way)(PAIRS, **given)
    for call in model.calls:
        assert {name: value for name, value in call.items() if not isinstance(value, Tensor)} == asked
    assert model.modes == [False, False], "in evaluation mode and without gradients"


def test_settings_of_one_evaluation_are_forgotten_after_it(make: Any) -> None:
    model = Recording()
    trainer = make(model)
    trainer.predict(PAIRS, num_beams=4)
    trainer.predict(PAIRS)
    assert [call.get("num_beams") for call in model.calls] == [4, 4, None, None]


class Answering(Seq2SeqTrainer):
    """An evaluation of its own around `evaluation_loop`, as question answering has it."""

    def evaluate(
        self,
        eval_dataset: Any = None,
        eval_examples: Any = None,
        ignore_keys: Any = None,
        metric_key_prefix: str = "eval",
        **gen_kwargs: Any,
    ) -> dict[str, float]:
        self._gen_kwargs = {**gen_kwargs, "max_length": 4}
        output = self.evaluation_loop(
            self.get_eval_dataloader(eval_dataset),
            description="Evaluation",
            prediction_loss_only=None,
            ignore_keys=ignore_keys,
            metric_key_prefix=metric_key_prefix,
        )
        return {f"{metric_key_prefix}_width": output.predictions.shape[1], **(output.metrics or {})}


def test_a_subclass_may_set_the_settings_itself(make: Any) -> None:
    model = Recording()
    trainer = make(model, kind=Answering, objects={"eval_dataset": {"one": PAIRS, "two": PAIRS}})
    assert trainer.evaluate(PAIRS, num_beams=2)["eval_width"] == 5
    assert {(call["max_length"], call["num_beams"]) for call in model.calls} == {(4, 2)}


class Stepping(Seq2SeqTrainer):
    """Overrides of the points that real subclasses override."""

    def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
        return super().prediction_step(*args, **kwargs, num_beams=7)

    def _pad_tensors_to_max_len(self, tensor: Tensor, max_length: int) -> Tensor:
        return nn.functional.pad(tensor, (0, max_length - tensor.shape[-1]), value=23)


def test_overrides_are_called(make: Any) -> None:
    model = Recording()
    output = make(model, kind=Stepping, generation_max_length=9).predict(PAIRS)
    assert (output.predictions[:, 3:] == 23).all()
    assert [{"num_beams", "synced_gpus"} & call.keys() for call in model.calls] == [{"num_beams", "synced_gpus"}] * 2
    assert "max_length" not in model.calls[0], "settings of a step stand alone"


def test_nothing_is_generated_for_a_loss(make: Any) -> None:
    model = Recording()
    assert make(model).evaluate(PAIRS)["eval_loss"] == 0
    assert make(model, prediction_loss_only=True).predict(PAIRS).predictions is None
    assert model.calls == []


def test_settings_without_generation_are_told(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    trainer = make(predict_with_generate=False)
    with caplog.at_level(logging.WARNING, logger="surestep"):
        trainer.evaluate(PAIRS, max_length=None)
        assert not caplog.messages
        trainer.evaluate(PAIRS, max_length=None, num_beams=4)
    assert caplog.messages == ["Without predict_with_generate=True nothing is generated: num_beams has no effect."]


def test_metrics_batch_by_batch(make: Any) -> None:
    seen: list[tuple[Any, bool]] = []

    def measure(prediction: Any, compute_result: bool = False) -> dict[str, float]:
        seen.append((prediction.predictions.shape, compute_result))
        return {"batches": len(seen)}

    trainer = make(objects={"compute_metrics": measure}, batch_eval_metrics=True, generation_max_length=6)
    assert trainer.evaluate(PAIRS)["eval_batches"] == 2
    assert seen == [((4, 20), False), ((4, 20), True)]


@pytest.mark.parametrize("model", [t5, bart])
def test_generation_uses_its_cache_while_training_recomputes(make: Any, model: Any) -> None:
    built = wordy(model)
    widths: list[tuple[bool, int]] = []
    trainer = make(
        built,
        objects={"eval_dataset": PAIRS, "compute_metrics": words},
        activation_checkpointing=True,
        eval_strategy="steps",
        eval_steps=1,
        generation_max_length=6,
    )
    built.get_decoder().register_forward_pre_hook(
        lambda module, args, given: widths.append((module.training, given["input_ids"].shape[1])), with_kwargs=True
    )
    trainer.train()
    generating = [width for training, width in widths if not training]
    assert generating.count(1) > len(generating) / 2, "a position at a time, and the labels of each batch at once"
    assert not built.config.use_cache


# Padding


def test_labels_keep_what_does_not_count(make: Any) -> None:
    output = make(generation_max_length=6, per_device_eval_batch_size=8).predict(PAIRS)
    labels = whole(make())["labels"].numpy()
    assert np.array_equal(output.label_ids[:, : labels.shape[1]], labels)
    assert (labels == IGNORED).any()
    assert (output.label_ids[:, labels.shape[1] :] == PAD).all()


class Speech:
    """A processor with a tokenizer in it."""

    tokenizer = SimpleNamespace(pad_token_id=9)


@pytest.mark.parametrize(
    ("processor", "config", "token"),
    [
        (SimpleNamespace(pad_token_id=4, eos_token_id=5), {"pad_token_id": 6}, 4),
        (SimpleNamespace(pad_token_id=None, eos_token_id=5), {"pad_token_id": 6}, 5),
        (None, {"pad_token_id": 6}, 6),
        (None, {"pad_token_id": 0}, 0),
        (None, {"eos_token_id": [7, 8]}, 7),
        (Speech(), {"pad_token_id": 6}, 6),
        (Speech(), {}, 9),
    ],
)
def test_the_padding_token(make: Any, processor: Any, config: dict[str, Any], token: int) -> None:
    trainer = make(Recording(**config), objects={"processing_class": processor})
    assert (trainer.predict(PAIRS).predictions[:, 3:] == token).all()


def test_without_a_padding_token_padding_is_an_error(make: Any) -> None:
    trainer = make(Recording(), objects={"processing_class": None})
    with pytest.raises(ArgumentError, match="need a padding token"):
        trainer.predict(PAIRS)


def test_samples_without_labels_have_no_loss(make: Any) -> None:
    output = make(generation_max_length=6).predict(Sources(8))
    assert output.label_ids is None
    assert "test_loss" not in (output.metrics or {})
    assert (output.predictions[:, 0] == END).all()
    assert output.predictions.max() > END
