"""Models in 4 and 8 bit with adapters (QLoRA), by bitsandbytes on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.parity.harness import Case, as_parameters, check
from tests.parity.models import Documents, pad
from tests.small import arguments
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from surestep import Trainer
from surestep.errors import ModelError

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
peft = pytest.importorskip("peft", reason="peft is not installed")
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:MatMul8bitLt. inputs will be cast:UserWarning"),
    pytest.mark.filterwarnings("ignore:torch.library.register_autograd:UserWarning"),
]

SAVED = {"max_steps": 6, "logging_steps": 1, "learning_rate": 1e-2, "save_strategy": "steps", "save_steps": 2}
FOUR = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32}
EIGHT = {"load_in_8bit": True}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    sizes = {"vocab_size": 24, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    folder = tmp_path_factory.mktemp("base")
    config = LlamaConfig(**sizes, intermediate_size=64, max_position_embeddings=16, bos_token_id=1, eos_token_id=2)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def bare(base: Path, bits: dict[str, Any]) -> Any:
    return LlamaForCausalLM.from_pretrained(
        base, quantization_config=BitsAndBytesConfig(**bits), device_map={"": "cpu"}
    )


def adapted(base: Path, bits: dict[str, Any]) -> Any:
    torch.manual_seed(1)
    model = peft.prepare_model_for_kbit_training(bare(base, bits), use_gradient_checkpointing=False)
    targets = ["q_proj", "v_proj"]
    return peft.get_peft_model(
        model, peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_dropout=0.1, target_modules=targets)
    )


def trained(folder: Path, model: Any, resume: Path | None = None, **settings: Any) -> Trainer:
    trainer = Trainer(
        model,
        arguments(folder, **{**SAVED, **settings}),
        train_dataset=Documents(),
        eval_dataset=Documents(),
        data_collator=pad,
    )
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer


def tensors(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("bits", [FOUR, EIGHT], ids=["4 bit", "8 bit"])
def test_adapters_on_a_quantised_model_train_save_and_resume(base: Path, bits: dict[str, Any], tmp_path: Path) -> None:
    model = adapted(base, bits)
    before = tensors(model)
    evaluated = {"eval_strategy": "steps", "eval_steps": 1}
    whole = trained(tmp_path / "whole", model, **evaluated)
    resumed = trained(tmp_path / "resumed", adapted(base, bits), tmp_path / "whole" / "checkpoint-2", **evaluated)
    after, again = tensors(model), tensors(resumed.model)

    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all("lora" in name for name in changed)
    assert all(torch.equal(value, again[name]) for name, value in after.items())
    norms = [entry["grad_norm"] for entry in whole.state.log_history if "grad_norm" in entry]
    assert all(norm > 0 for norm in norms)
    assert (tmp_path / "whole" / "checkpoint-6" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("bits", [FOUR, EIGHT], ids=["4 bit", "8 bit"])
def test_without_adapters_it_is_refused(base: Path, bits: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"quantised \(bitsandbytes\) and has no adapters"):
        trained(tmp_path, bare(base, bits))


def _made(bits: dict[str, Any]) -> Callable[[], Any]:
    return lambda: adapted(_BASE[0], bits)


_BASE: list[Path] = []
PARITY = [
    Case(
        name, {"max_steps": 6, "learning_rate": 1e-2}, {"model": _made(bits), "train": Documents, "data_collator": pad}
    )
    for name, bits in (("4 bit", FOUR), ("8 bit", EIGHT))
]


@as_parameters(PARITY)
def test_training_is_that_of_the_original(case: Case, base: Path) -> None:
    _BASE[:] = [base]
    check(case)
