"""Settings of generation, and the arguments of `generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from tests.parity.sequences import bart, t5
from tests.parity.tiny import bert

from surestep.errors import ArgumentError, ModelError
from surestep.trainer.generation import (
    arguments_of,
    check_generation_config,
    generated_width,
    generation_inputs,
    load_generation_config,
)

Settings = transformers.GenerationConfig


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Settings(num_beams=3, max_length=17).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "source",
    [
        str,
        lambda folder: folder,
        lambda folder: str(folder / "generation_config.json"),
        lambda folder: folder / "generation_config.json",
        lambda folder: {"num_beams": 3, "max_length": 17},
        lambda folder: Settings(num_beams=3, max_length=17),
    ],
)
def test_settings_come_from_many_places(folder: Path, source: Any) -> None:
    config = load_generation_config(source(folder))
    assert (config.num_beams, config.max_length) == (3, 17)


def test_an_object_is_copied() -> None:
    given = Settings(num_beams=3)
    load_generation_config(given).num_beams = 5
    assert given.num_beams == 3


def test_a_place_without_settings_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"generation_config='.*' leads to no generation settings"):
        load_generation_config(tmp_path)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"length_penalty(.|\n)*Correct generation_config before training"):
        load_generation_config({"num_beams": 1, "length_penalty": 2.0})


def test_settings_that_are_as_they_were_loaded_can_be_saved(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"num_beams": 1, "length_penalty": 2.0}')
    model: Any = bart()
    model.generation_config = Settings.from_pretrained(tmp_path)
    check_generation_config(model)
    model.save_pretrained(tmp_path / "saved")
    model.generation_config.max_length = 30
    with pytest.raises(ArgumentError, match="cannot be saved"):
        check_generation_config(model)
    with pytest.raises(ValueError, match="length_penalty"):
        model.save_pretrained(tmp_path / "saved")


class Own(torch.nn.Module):
    """A model of one's own, whose settings are saved with nothing."""

    generation_config = Settings(num_beams=1, length_penalty=2.0)


def adapted() -> Any:
    model = t5()
    model.generation_config.update(num_beams=1, length_penalty=2.0)
    return peft.get_peft_model(model, peft.LoraConfig(target_modules=["q"]))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("make", [lambda: torch.nn.Linear(1, 1), bart, bert, Own, adapted])
def test_other_models_have_nothing_to_check(make: Any) -> None:
    check_generation_config(make())


@pytest.mark.parametrize(
    ("settings", "num_tokens", "width"),
    [
        ({}, 5, 20),
        ({}, 21, 21),
        ({"max_length": 12}, 5, 12),
        ({"max_length": 12}, 12, 12),
        ({"max_new_tokens": 30}, 5, 20),
        ({"max_new_tokens": 30}, 20, 31),
        ({"max_new_tokens": 30}, 31, 31),
        ({"max_length": 12, "max_new_tokens": 8}, 15, 15),
        (None, 5, 5),
    ],
)
def test_width(settings: dict[str, int] | None, num_tokens: int, width: int) -> None:
    assert generated_width(None if settings is None else Settings(**settings), num_tokens) == width


def test_the_length_where_nothing_says_it_is_that_of_transformers() -> None:
    assert generated_width(Settings(), 1) == Settings._get_default_generation_params()["max_length"]


ROWS = torch.zeros(2, 3)
IDS = {"input_ids": ROWS, "attention_mask": ROWS}


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        ({"labels": ROWS, "decoder_input_ids": ROWS, "decoder_attention_mask": ROWS}, {"labels"}),
        ({"labels": ROWS, "decoder_input_ids": ROWS}, {"labels"}),
        ({"labels": ROWS, "decoder_input_ids": ROWS[:, :1]}, {"labels", "decoder_input_ids"}),
        ({"labels": None, "decoder_input_ids": ROWS}, {"labels", "decoder_input_ids"}),
        ({"decoder_input_ids": ROWS}, {"decoder_input_ids"}),
    ],
)
def test_inputs_of_the_decoder_that_come_from_labels_are_left_out(more: dict[str, Any], kept: set[str]) -> None:
    batch = transformers.BatchEncoding({**IDS, **more})
    assert generation_inputs(batch).keys() == {*IDS, *kept}
    assert batch.keys() == {*IDS, *more}, "the batch itself is left alone"


def takes_all(**given: Any) -> None:
    """Take anything."""


def takes_some(input_ids: Any, max_length: int = 3) -> None:
    """Take two names."""


def takes_others(tokens: Any) -> None:
    """Take one name."""


def test_a_setting_goes_before_an_input() -> None:
    assert arguments_of(takes_all, {"a": 1, "b": 2}, {"b": 3}) == {"a": 1, "b": 3}


def test_named_parameters_get_what_they_name() -> None:
    given = arguments_of(takes_some, {"input_ids": 1, "labels": 2}, {"max_length": 5, "synced_gpus": False})
    assert given == {"input_ids": 1, "max_length": 5}


def test_a_setting_that_is_not_taken_is_an_error() -> None:
    with pytest.raises(ArgumentError, match=r"takes_some takes no num_beams=4; it takes \(input_ids, max_length\)"):
        arguments_of(takes_some, {"input_ids": 1}, {"num_beams": 4})


def test_inputs_that_are_not_taken_at_all_are_an_error() -> None:
    with pytest.raises(ModelError, match=r"takes_others takes \(tokens\) and the batch has \(input_ids\)"):
        arguments_of(takes_others, {"input_ids": 1}, {})
