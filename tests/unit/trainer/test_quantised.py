"""Which quantised models are refused, and with which words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.parity.harness import both
from tests.parity.models import Reviews, pad
from tests.parity.test_transformers_models import bert
from tests.small import Line, line, quick
from transformers import BertForSequenceClassification

from surestep.errors import ModelError
from surestep.trainer.quantised import check_quantised


def quantised(**said: Any) -> Line:
    model = line()
    for name, value in said.items():
        setattr(model, name, value)
    return model


def quantizer(**said: Any) -> Any:
    config = SimpleNamespace(quant_method="gptq")
    return SimpleNamespace(**{"quantization_config": config, "is_trainable": True, **said})


BARE = [
    ({"is_quantized": True}, "no method named"),
    ({"quantization_method": "bitsandbytes"}, "bitsandbytes"),
    ({"quantization_method": SimpleNamespace(value="bitsandbytes")}, "bitsandbytes"),
    ({"hf_quantizer": quantizer()}, "gptq"),
]


@pytest.mark.parametrize(("said", "method"), BARE)
def test_without_adapters_it_is_refused_before_the_first_step(said: Any, method: str, tmp_path: Path) -> None:
    trainer = quick(tmp_path, model=quantised(**said))
    message = rf"Line is quantised \({method}\) and has no adapters.*peft.get_peft_model.*without quantization_config"
    with pytest.raises(ModelError, match=message):
        trainer.train()

    assert trainer.state.global_step == 0
    assert not list(tmp_path.glob("checkpoint-*"))


def test_evaluation_needs_no_adapters(tmp_path: Path) -> None:
    trainer = quick(tmp_path, model=quantised(is_quantized=True))

    assert "eval_loss" in trainer.evaluate(trainer.train_dataset)


@pytest.mark.parametrize("said", [{}, {"is_quantized": False}, {"quantization_method": None, "hf_quantizer": None}])
def test_a_model_that_is_not_quantised_passes(said: Any) -> None:
    check_quantised(quantised(**said))


def test_adapters_make_it_trainable(tmp_path: Path) -> None:
    model = quantised(is_quantized=True, hf_quantizer=quantizer(), peft_config={"default": object()})
    check_quantised(model)


def test_training_that_knows_of_its_rounding_passes() -> None:
    check_quantised(quantised(is_quantized=True, hf_quantizer=quantizer(is_qat_trainable=True)))


def test_a_kind_without_gradients_is_refused_with_adapters_too() -> None:
    model = quantised(hf_quantizer=quantizer(is_trainable=False), peft_config={"default": object()})
    with pytest.raises(ModelError, match=r"quantised by gptq, which lets no gradient through.*load_in_4bit=True"):
        check_quantised(model)


@pytest.mark.parametrize("said", [{"hf_device_map": {"": "cpu"}}, {"quantization_method": "bitsandbytes"}, {}])
def test_a_model_that_knows_its_place_is_not_moved(said: Any, tmp_path: Path) -> None:
    class Settled(Line):
        def to(self, *args: Any, **kwargs: Any) -> Any:
            moves.append((args, kwargs))
            return super().to(*args, **kwargs)

    moves: list[Any] = []
    model = Settled()
    for name, value in said.items():
        setattr(model, name, value)
    trainer = quick(tmp_path, model=model)
    if "quantization_method" not in said:
        trainer.train()

    assert bool(moves) == (not said)


def test_a_model_with_a_map_of_one_device_trains_as_with_the_original(tmp_path: Path) -> None:
    bert().save_pretrained(tmp_path)

    def mapped() -> Any:
        model = BertForSequenceClassification.from_pretrained(tmp_path, device_map={"": "cpu"})
        model.hf_device_map = {"": "cpu"}
        return model

    theirs, ours = both({"max_steps": 4, "logging_steps": 1}, model=mapped, train=Reviews, data_collator=pad)

    assert ours.losses == theirs.losses
    assert ours.trainer.model.device.type == "cpu"
