"""Weights of models that other libraries write and read: transformers, PEFT."""

from __future__ import annotations

import errno
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError
from tests.unit.checkpoint.nets import Plain, same
from torch import nn

from surestep import optional
from surestep.checkpoint.weights import load_weights, save_weights
from surestep.errors import CheckpointError

# Models of transformers


def tiny(kind: str) -> Any:
    import transformers as hf

    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 24}
    if kind == "gpt2":
        return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=2))
    if kind == "bert":
        return hf.BertForSequenceClassification(hf.BertConfig(vocab_size=40, **sizes))
    if kind == "bert tied":
        return hf.BertForMaskedLM(hf.BertConfig(vocab_size=40, **sizes))
    return hf.MixtralForCausalLM(hf.MixtralConfig(vocab_size=40, num_key_value_heads=2, num_local_experts=3, **sizes))


KINDS = ["gpt2", "bert", "bert tied", "mixtral"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", ["50GB", "10KB"])
def test_what_transformers_writes_is_read(tmp_path: Path, kind: str, size: str) -> None:
    model, other = tiny(kind), tiny(kind)
    model.save_pretrained(tmp_path, max_shard_size=size)
    report = load_weights(other, tmp_path)
    assert report.missing == report.unexpected == []
    same(model, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("original_format", [True, False])
@pytest.mark.parametrize("size", ["50GB", "10KB"])
def test_transformers_reads_what_is_written(tmp_path: Path, kind: str, original_format: bool, size: str) -> None:
    model, other = tiny(kind), tiny(kind)
    save_weights(model, tmp_path, original_format=original_format, max_shard_size=size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (size == "10KB")
    found, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    same(model, found)
    load_weights(other, tmp_path)
    same(model, other)


def test_weights_of_another_model_of_transformers_are_named(tmp_path: Path) -> None:
    save_weights(tiny("bert"), tmp_path)
    with pytest.raises(CheckpointError, match=r"lack .*cls.predictions.*The model has no .*classifier"):
        load_weights(tiny("bert tied"), tmp_path)


def test_a_wrapped_model_of_transformers_saves_itself_under_plain_names(tmp_path: Path) -> None:
    model, other = tiny("bert"), tiny("bert")
    same_layer = model.bert.encoder.layer[0]
    model.bert.encoder.layer[0] = torch.compile(same_layer)
    save_weights(nn.DataParallel(model), tmp_path)
    load_weights(other, tmp_path)
    for found, expected in zip(other.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(found, expected)
    assert type(other).from_pretrained(tmp_path, output_loading_info=True)[1]["missing_keys"] == set()


def test_a_state_given_for_a_model_of_transformers_is_the_one_saved(tmp_path: Path) -> None:
    model, other = tiny("gpt2"), tiny("gpt2")
    state = {f"module.{name}".removeprefix("module."): value for name, value in model.state_dict().items()}
    save_weights(other, tmp_path, state_dict=state)
    load_weights(other, tmp_path)
    same(model, other)


def test_files_get_the_permissions_of_other_new_files(tmp_path: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    for kind, model in {"hf": tiny("bert"), "plain": Plain()}.items():
        save_weights(model, tmp_path / kind)
        assert (tmp_path / kind / "model.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask


class Saving(nn.Module):
    """Anything with a method `save_pretrained`."""

    _keys_to_ignore_on_save = ("position",)
    _keys_to_ignore_on_load_unexpected = (r"old\..*",)
    _keys_to_ignore_on_load_missing = ("late",)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("position", torch.arange(3))
        self.register_buffer("late", torch.ones(1))
        self.calls: list[dict[str, Any]] = []
        self.error: Exception | None = None

    def save_pretrained(self, directory: str, **options: Any) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append(options)
        state = {"weight": options.get("state_dict", self.state_dict())["weight"], "old.bias": torch.zeros(1)}
        safetensors.torch.save_file(state, Path(directory) / "model.safetensors")


def test_a_model_that_can_save_itself_does(tmp_path: Path) -> None:
    model = Saving()
    save_weights(model, tmp_path)
    save_weights(model, tmp_path, state_dict=model.state_dict())
    assert [list(call) for call in model.calls] == [[], ["state_dict"]]
    report = load_weights(model, tmp_path)
    assert report.missing == report.unexpected == []


def test_a_full_disk_is_told_as_such_whoever_writes(tmp_path: Path) -> None:
    model = Saving()
    model.error = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(OSError, match="No space left") as caught:
        save_weights(model, tmp_path)
    assert caught.value.errno == errno.ENOSPC
    model.error = SafetensorError("invalid header")
    with pytest.raises(SafetensorError, match="invalid header"):
        save_weights(model, tmp_path)


# Adapters: a stand-in for PEFT with the two functions that are called


class Adapted(nn.Module):
    def __init__(self, *adapters: str, native: bool = False) -> None:
        super().__init__()
        self.peft_config = dict.fromkeys(adapters)
        layer = nn.ModuleDict({name: nn.Linear(2, 2) for name in adapters})
        model = nn.ModuleDict({"base": nn.Linear(2, 2), "lora": layer})
        if native:
            self.lora, self.base = model["lora"], model["base"]
        else:
            self.base_model = nn.ModuleDict({"model": model})


def adapter_state(model: Adapted, adapter_name: str, **_: Any) -> dict[str, torch.Tensor]:
    state = model.state_dict()
    return {
        key.replace(f".{adapter_name}", ""): value for key, value in state.items() if f"lora.{adapter_name}." in key
    }


def set_adapter_state(model: Adapted, state: dict[str, torch.Tensor], adapter_name: str) -> Any:
    named = {key.replace("lora.", f"lora.{adapter_name}."): value for key, value in state.items()}
    return SimpleNamespace(unexpected_keys=model.load_state_dict(named, strict=False).unexpected_keys)


@pytest.fixture
def _peft(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = ModuleType("peft")
    module.__spec__ = ModuleSpec("peft", None)
    module.get_peft_model_state_dict = adapter_state  # type: ignore[attr-defined]
    module.set_peft_model_state_dict = set_adapter_state  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "peft", module)
    optional.installed.cache_clear()
    yield
    optional.installed.cache_clear()


def save_adapters(model: Adapted, folder: Path, *, prefix: str = "") -> None:
    for name in model.peft_config:
        place = folder if name == "default" else folder / name
        place.mkdir(exist_ok=True)
        state = {f"{prefix}{key}": value for key, value in adapter_state(model, name).items()}
        safetensors.torch.save_file(state, place / "adapter_model.safetensors")


@pytest.mark.usefixtures("_peft")
@pytest.mark.parametrize("names", [("default",), ("mine",), ("default", "second"), ("one", "two")])
def test_every_adapter_is_read(tmp_path: Path, names: tuple[str, ...]) -> None:
    model, other = Adapted(*names), Adapted(*names)
    save_adapters(model, tmp_path)
    base = other.base_model["model"]["base"].weight.clone()  # type: ignore[index]
    report = load_weights(other, tmp_path)
    assert report.missing == report.unexpected == []
    for name in names:
        for key, value in adapter_state(model, name).items():
            assert torch.equal(adapter_state(other, name)[key], value)
    assert torch.equal(other.base_model["model"]["base"].weight, base)  # type: ignore[index]


@pytest.mark.usefixtures("_peft")
def test_adapters_within_a_model_of_transformers_are_read(tmp_path: Path) -> None:
    model, other = Adapted("mine", native=True), Adapted("mine", native=True)
    state = {f"base_model.model.{key}": value for key, value in adapter_state(model, "mine").items()}
    safetensors.torch.save_file(state, tmp_path / "adapter_model.safetensors")
    assert load_weights(other, tmp_path).missing == []
    assert torch.equal(other.lora["mine"].weight, model.lora["mine"].weight)  # type: ignore[index]


@pytest.mark.usefixtures("_peft")
def test_adapters_that_do_not_fit_are_named(tmp_path: Path) -> None:
    model = Adapted("default", "second")
    save_adapters(model, tmp_path)
    with pytest.raises(CheckpointError, match="holds the adapter 'second', and the model has 'default'"):
        load_weights(Adapted("default"), tmp_path)
    (tmp_path / "second" / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="They lack 'adapter second'"):
        load_weights(Adapted("default", "second"), tmp_path)
    safetensors.torch.save_file(
        {"base_model.model.lora.bias": torch.ones(2), "base_model.model.lora.new": torch.ones(2)},
        tmp_path / "adapter_model.safetensors",
    )
    with pytest.raises(CheckpointError, match=r"lack 'base_model.model.lora.weight'.*no 'base_model.model.lora.new'"):
        load_weights(Adapted("default"), tmp_path)
