"""The way back: what this library saves, the original loads and trains on from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from torch import Tensor, nn

import surestep
from surestep.checkpoint.weights import save_weights
from tests.parity import tiny
from tests.parity.compare import Seen, assert_close
from tests.parity.harness import run
from tests.parity.models import Net, Points
from tests.resume.test_foreign import BASE, TEXT, adapted

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
AUTO = transformers.AutoModelForCausalLM
MODELS: dict[str, Callable[[], nn.Module]] = {"plain": tiny.llama, "tied": tiny.gpt2, "adapters": adapted}


def train(folder: Path, model: Callable[[], nn.Module], **options: Any) -> Seen:
    arguments = {**BASE, "eval_strategy": "steps", "eval_steps": 3, "metric_for_best_model": "loss"}
    given = {**TEXT, "evaluate": TEXT["train"], "callbacks": lambda side: [side.EarlyStoppingCallback(9)], **options}
    return run(surestep, arguments, model=model, folder=str(folder), **given)


def logits(model: nn.Module) -> Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=torch.arange(1, 13).reshape(2, 6)).logits


@pytest.mark.parametrize("name", ["plain", "tied"])
def test_a_checkpoint_is_loaded_by_from_pretrained(name: str, tmp_path: Path) -> None:
    seen = train(tmp_path, MODELS[name])
    loaded, report = AUTO.from_pretrained(tmp_path / "checkpoint-12", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(logits(loaded), logits(seen.trainer.model))


def test_adapters_are_loaded_by_from_pretrained(tmp_path: Path) -> None:
    seen = train(tmp_path, adapted)
    torch.manual_seed(3)
    base = tiny.llama()
    assert torch.equal(logits(PeftModel.from_pretrained(base, tmp_path / "checkpoint-12")), logits(seen.trainer.model))


def test_weights_in_several_files_are_loaded_by_from_pretrained(tmp_path: Path) -> None:
    model = tiny.gpt2()
    save_weights(model, tmp_path, max_shard_size="5KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert torch.equal(logits(AUTO.from_pretrained(tmp_path)), logits(model))


@pytest.mark.parametrize("name", [*MODELS, "any module"])
def test_the_originals_trainer_goes_on_from_our_weights(name: str, tmp_path: Path) -> None:
    """It takes up weights and state; what it has no file for starts anew (see row C1 of the differences)."""
    model = Net if name == "any module" else MODELS[name]
    options = {"train": Points, "evaluate": Points, "data_collator": None} if name == "any module" else {}
    ours = train(tmp_path, model, **options)
    steps: list[Any] = []

    class Looks(transformers.TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            found = kwargs["model"].state_dict()
            steps.append((state.global_step, {key: value.clone() for key, value in found.items()}))

    theirs = run(
        transformers,
        {**BASE, "num_train_epochs": 3, "learning_rate": 1e-4},
        model=model,
        folder=str(tmp_path),
        callbacks=lambda side: [Looks()],
        drive=lambda trainer: trainer.train(
            resume_from_checkpoint=str(tmp_path / f"checkpoint-{ours.state.global_step}")
        ),
        **{key: value for key, value in {**TEXT, **options}.items() if key != "evaluate"},
    )
    step, weights = steps[0]
    assert step == ours.state.global_step
    assert_close(ours.weights, weights, 0.0, "weights at the start")
    assert theirs.state.global_step == step * 3 // 2
    assert [entry["step"] for entry in theirs.logs if "loss" in entry] == [*range(1, theirs.state.global_step + 1)]


def test_our_state_is_read_by_the_originals_class(tmp_path: Path) -> None:
    seen = train(tmp_path, tiny.llama)
    theirs = transformers.TrainerState.load_from_json(str(tmp_path / "checkpoint-12" / "trainer_state.json"))
    assert theirs.global_step == 12
    assert [entry["step"] for entry in theirs.log_history if "loss" in entry] == [*range(1, 13)]
    names = {field.name for field in dataclasses.fields(transformers.TrainerState)}
    assert names == {field.name for field in dataclasses.fields(surestep.TrainerState)}
    for name in ("epoch", "max_steps", "best_metric", "best_global_step", "total_flos", "num_train_epochs"):
        assert getattr(theirs, name) == getattr(seen.state, name), name
    callbacks = theirs.stateful_callbacks
    patience = transformers.EarlyStoppingCallback.from_state(callbacks["EarlyStoppingCallback"])
    assert patience.early_stopping_patience == 9
    assert transformers.TrainerControl.from_state(callbacks["TrainerControl"]).should_training_stop
