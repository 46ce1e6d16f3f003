"""Adapters of PEFT: what is trained, saved, resumed and merged, against the original and by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.parity.harness import Case, as_parameters, both, check
from tests.parity.models import Documents, Reviews, pad
from tests.parity.test_transformers_models import Prefixed, bert, llama, table
from tests.small import arguments
from torch import Tensor, nn

from surestep import Trainer

peft = pytest.importorskip("peft")
# PEFT asks transformers by a name that it calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

BASE = {"per_device_train_batch_size": 4, "max_steps": 6, "logging_steps": 1, "learning_rate": 1e-2}
SAVED = {**BASE, "save_strategy": "steps", "save_steps": 2}


def lora(task: str, **settings: Any) -> Any:
    return peft.LoraConfig(task_type=task, r=4, lora_alpha=8, **{"lora_dropout": 0.1, **settings})


def classifier() -> Any:
    torch.manual_seed(1)
    return peft.get_peft_model(bert(), lora("SEQ_CLS", target_modules=["query", "value"]))


def writer() -> Any:
    torch.manual_seed(1)
    return peft.get_peft_model(llama(), lora("CAUSAL_LM", target_modules=["q_proj", "v_proj"]))


def prompted() -> Any:
    torch.manual_seed(1)
    return peft.get_peft_model(llama(), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))


def p_tuned() -> Any:
    torch.manual_seed(1)
    config = peft.PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, encoder_hidden_size=8)
    return peft.get_peft_model(llama(), config)


def prefixed() -> Any:
    torch.manual_seed(1)
    config = peft.PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=8
    )
    return peft.get_peft_model(llama(), config)


def trainer_of(folder: Path, model: Any, **settings: Any) -> Trainer:
    texts = Reviews() if isinstance(model, peft.PeftModelForSequenceClassification) else Documents()
    return Trainer(
        model=model,
        args=arguments(folder, **{**BASE, **settings}),
        train_dataset=texts,
        eval_dataset=texts,
        data_collator=pad,
    )


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert not changed(one, other)


@pytest.mark.parametrize("make", [classifier, writer, prompted])
def test_only_what_peft_added_is_trained(make: Callable[[], Any], tmp_path: Path) -> None:
    model = make()
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    before = weights_of(model)
    trainer = trainer_of(tmp_path, model)
    trainer.train()

    assert changed(before, weights_of(model)) == trainable
    assert 0 < len(trainable) < len(before) / 2
    held = [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]
    assert len(held) == len(trainable)


@pytest.mark.parametrize("make", [classifier, writer])
def test_labels_and_columns_are_those_of_the_model_within(
    make: Callable[[], Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = table() if make is classifier else table().rename_column("label", "labels")
    trainer = Trainer(model=make(), args=arguments(tmp_path), train_dataset=rows)
    batch = next(iter(trainer.get_train_dataloader()))

    assert trainer.label_names == ["labels"]
    assert set(batch) == {"input_ids", "attention_mask", "labels"}


PARITY = [
    Case("LoRA on Bert", BASE, {"model": classifier, "train": Reviews, "data_collator": pad, "evaluate": Reviews}),
    Case(
        "LoRA on Bert, a table, label smoothing",
        {**BASE, "label_smoothing_factor": 0.1, "eval_strategy": "epoch"},
        {"model": classifier, "train": table, "evaluate": table},
        lambda seen: "eval_loss" in seen.last_logs,
    ),
    Case("LoRA on Llama", BASE, {"model": writer, "train": Documents, "data_collator": pad}),
    Case(
        "LoRA on Llama, accumulated",
        {**BASE, "gradient_accumulation_steps": 3, "label_smoothing_factor": 0.1},
        {"model": writer, "train": Documents, "data_collator": pad},
    ),
    Case(
        "LoRA on Llama, recomputed and noisy",
        {**BASE, "activation_checkpointing": True, "neftune_noise_alpha": 5},
        {"model": writer, "train": Documents, "data_collator": pad},
    ),
    Case("Prompt tuning of Llama", BASE, {"model": prompted, "train": Prefixed, "data_collator": pad}),
    Case(
        "LoRA on Bert, the highest loss at the end",
        {**SAVED, "eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True, "greater_is_better": True},
        {"model": classifier, "train": Reviews, "data_collator": pad, "evaluate": Reviews},
        lambda seen: seen.state.best_global_step < seen.state.global_step,
    ),
]


def test_virtual_tokens_let_the_first_label_count(tmp_path: Path) -> None:
    """Virtual tokens stand before the first one, which so is predicted too; the original divides as if it were not."""
    theirs, ours = both({**BASE, "max_steps": 1}, model=prompted, train=Documents, data_collator=pad)
    batch = pad([Documents()[number] for number in range(4)])
    count = int((batch["labels"] != -100).sum())
    ratio = theirs.losses[0] / ours.losses[0]

    assert ours.trainer._shift.shifted is False
    sizes = {len(tokens) for tokens in Documents().tokens}
    assert min(sizes) / (min(sizes) - 1) >= ratio >= max(sizes) / (max(sizes) - 1)
    model = prompted()
    expected = model(**batch).loss.item()
    evaluation = trainer_of(tmp_path, model)
    evaluation._shift = ours.trainer._shift
    loss = evaluation.compute_loss(model, batch, num_items_in_batch=torch.tensor(count))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@as_parameters(PARITY)
def test_adapters_train_as_with_the_original(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("make", [classifier, writer, prompted])
def test_a_checkpoint_holds_the_adapter_and_no_base_weights(make: Callable[[], Any], tmp_path: Path) -> None:
    model = make()
    trainer_of(tmp_path, model, save_strategy="steps", save_steps=6).train()
    folder = tmp_path / "checkpoint-6"

    assert {"adapter_model.safetensors", "adapter_config.json"} <= {path.name for path in folder.iterdir()}
    assert not (folder / "model.safetensors").exists()
    assert json.loads((folder / "adapter_config.json").read_text())["inference_mode"] is True
    torch.manual_seed(1)
    base = bert() if make is classifier else llama()
    read = peft.PeftModel.from_pretrained(base, folder)
    assert_equal(peft.get_peft_model_state_dict(model), peft.get_peft_model_state_dict(read))


@pytest.mark.parametrize("make", [classifier, writer, prompted, p_tuned, prefixed])
def test_a_resumed_run_is_the_same_to_the_last_bit(make: Callable[[], Any], tmp_path: Path) -> None:
    whole = trainer_of(tmp_path / "whole", make(), **SAVED)
    whole.train()
    resumed = trainer_of(tmp_path / "resumed", make(), **SAVED)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))

    assert_equal(weights_of(whole.model), weights_of(resumed.model))
    assert [entry["loss"] for entry in whole.state.log_history if "loss" in entry] == [
        entry["loss"] for entry in resumed.state.log_history if "loss" in entry
    ]
    moments = whole.optimizer.state_dict()["state"]
    for number, state in resumed.optimizer.state_dict()["state"].items():
        assert torch.equal(state["exp_avg_sq"], moments[number]["exp_avg_sq"])


@pytest.mark.parametrize("make", [classifier, prompted, p_tuned, prefixed])
def test_the_best_adapter_is_loaded_at_the_end(make: Callable[[], Any], tmp_path: Path) -> None:
    model = make()
    # The highest loss is called the best, so that it is the one of the first evaluation.
    best = {"eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True, "greater_is_better": True}
    trainer = trainer_of(tmp_path, model, **{**SAVED, **best})
    trainer.train()

    assert trainer.state.best_global_step == 2
    assert trainer.evaluate()["eval_loss"] == trainer.state.best_metric


def test_a_merged_model_computes_what_the_adapted_one_does(tmp_path: Path) -> None:
    model = classifier()
    trainer = trainer_of(tmp_path, model)
    trainer.train()
    expected = trainer.predict(Reviews()).predictions
    merged = model.merge_and_unload()
    trainer = Trainer(model=merged, args=arguments(tmp_path / "merged"), data_collator=pad)
    trainer.save_model()

    assert not any("lora" in name for name, _ in merged.named_parameters())
    torch.testing.assert_close(trainer.predict(Reviews()).predictions, expected, rtol=1e-4, atol=1e-6)
    read = type(merged).from_pretrained(tmp_path / "merged")
    assert_equal(weights_of(merged), weights_of(read))


def test_two_adapters_are_both_saved_and_resumed(tmp_path: Path) -> None:
    def make() -> Any:
        model = classifier()
        model.add_adapter("second", lora("SEQ_CLS", target_modules=["query"]))
        return model

    whole = trainer_of(tmp_path / "whole", make(), **SAVED)
    whole.train()
    folder = tmp_path / "whole" / "checkpoint-2"
    assert (folder / "second" / "adapter_model.safetensors").is_file()
    resumed = trainer_of(tmp_path / "resumed", make(), **SAVED)
    resumed.train(resume_from_checkpoint=str(folder))

    assert_equal(weights_of(whole.model), weights_of(resumed.model))


def test_adapters_that_a_transformer_took_itself(tmp_path: Path) -> None:
    """`model.add_adapter` puts LoRA into a transformer without a wrapper around it."""

    def make() -> Any:
        torch.manual_seed(1)
        model = bert()
        model.add_adapter(lora("SEQ_CLS", target_modules=["query", "value"]))
        return model

    model = make()
    before = weights_of(model)
    whole = trainer_of(tmp_path / "whole", model, **SAVED)
    whole.train_dataset = Reviews()
    whole.train()
    resumed = trainer_of(tmp_path / "resumed", make(), **SAVED)
    resumed.train_dataset = Reviews()
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))

    assert all("lora" in name for name in changed(before, weights_of(model)))
    assert (tmp_path / "whole" / "checkpoint-4" / "adapter_model.safetensors").is_file()
    assert_equal(weights_of(model), weights_of(resumed.model))
