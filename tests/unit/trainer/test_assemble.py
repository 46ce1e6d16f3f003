"""What a model is given for training, and that it is the user's again afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small import Line, Points, arguments, line, quick
from torch import Tensor, nn

from surestep import Trainer
from surestep.errors import ArgumentError, ModelError
from surestep.trainer.assemble import seed_run


class Embedded(nn.Module):
    """A model of tokens with layers, noise and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(10, 4)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def forward(self, input_ids: Tensor, labels: Any = None) -> dict[str, Tensor]:
        hidden = self.table(input_ids)
        for layer in self.layers:
            hidden = layer(hidden)
        return {"loss": hidden.square().mean(), "logits": hidden}


WORDS = [{"input_ids": torch.tensor([1, 2, 3]), "labels": torch.tensor([1.0])} for _ in range(8)]


def embedded(folder: Path, **settings: Any) -> Trainer:
    return quick(folder, model=Embedded(), train_dataset=WORDS, **settings)


def losses(trainer: Trainer) -> list[float]:
    trainer.args.logging_steps = 1
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + ("forward" in vars(module)) for module in model.modules())


@pytest.mark.parametrize(
    "settings",
    [
        {"neftune_noise_alpha": 5.0},
        {"activation_checkpointing": True},
        {"bf16": True},
        {"debug": "underflow_overflow"},
        {"torch_compile": True, "torch_compile_backend": "eager"},
        {"neftune_noise_alpha": 5.0, "activation_checkpointing": True, "bf16": True},
    ],
    ids="+".join,
)
def test_the_model_is_the_users_again_after_training(tmp_path: Path, settings: dict[str, Any]) -> None:
    trainer = embedded(tmp_path, **settings)
    trainer.train()

    assert hooks(trainer.model) == 0
    assert isinstance(trainer.model, Embedded)
    assert trainer.predict(WORDS).predictions.shape == (8, 3, 4)


def test_noise_is_added_in_training_only(tmp_path: Path) -> None:
    plain, noisy = embedded(tmp_path / "plain"), embedded(tmp_path / "noisy", neftune_noise_alpha=50.0)
    assert losses(plain)[0] != losses(noisy)[0]

    quiet = embedded(tmp_path / "quiet", neftune_noise_alpha=50.0)
    assert quiet.evaluate(WORDS)["eval_loss"] == embedded(tmp_path / "other").evaluate(WORDS)["eval_loss"]


@pytest.mark.parametrize(
    "settings",
    [{"activation_checkpointing": True}, {"torch_compile": True, "torch_compile_backend": "eager"}],
    ids=["recomputed", "compiled"],
)
def test_what_saves_memory_or_time_changes_no_number(tmp_path: Path, settings: dict[str, Any]) -> None:
    assert losses(embedded(tmp_path / "plain")) == losses(embedded(tmp_path / "other", **settings))


def test_a_compiled_model_is_the_one_that_is_called(tmp_path: Path) -> None:
    trainer = embedded(tmp_path, torch_compile=True, torch_compile_backend="eager")
    trainer.train()

    assert trainer.model_wrapped is not trainer.model
    assert trainer.engine.unwrap(trainer.model_wrapped) is trainer.model


def test_overflow_is_stopped_and_named(tmp_path: Path) -> None:
    class Explodes(Line):
        def forward(self, x: Tensor, labels: Any = None) -> dict[str, Tensor]:
            return super().forward(x * float("inf"), labels)

    with pytest.raises(ModelError, match=r"The output of module 'layer' is not finite"):
        quick(tmp_path, model=Explodes(), debug="underflow_overflow").train()


def test_noise_needs_embeddings(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"neftune_noise_alpha is 5\.0, but Line has no get_input_embeddings"):
        quick(tmp_path, neftune_noise_alpha=5.0).train()


# Seeds


def test_the_seed_of_a_run(tmp_path: Path) -> None:
    seed_run(arguments(tmp_path, seed=3))

    assert torch.initial_seed() == 3
    assert not torch.are_deterministic_algorithms_enabled()


def test_full_determinism(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG", "ASCEND_LAUNCH_BLOCKING", "HCCL_DETERMINISTIC",
                 "FLASH_ATTENTION_DETERMINISTIC"):  # fmt: skip
        monkeypatch.setenv(name, "")
    benchmark, deterministic = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    try:
        seed_run(arguments(tmp_path, seed=4, full_determinism=True))
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.initial_seed() == 4
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = benchmark, deterministic


# Meters


@pytest.mark.parametrize(
    ("settings", "model", "meters"),
    [
        ({}, line, []),
        ({"include_num_input_tokens_seen": "all"}, line, ["_track_num_input_tokens"]),
    ],
)
def test_nothing_counts_what_could_only_be_nothing(
    tmp_path: Path, settings: Any, model: Any, meters: list[str]
) -> None:
    trainer = quick(tmp_path, model=model(), **settings)
    trainer.model.main_input_name = "x"
    trainer.train()

    assert [meter.__name__ for meter in trainer._run.meters] == meters


def test_gradients_from_before_are_dropped(tmp_path: Path) -> None:
    plain, dirty = quick(tmp_path / "plain"), quick(tmp_path / "dirty")
    for parameter in dirty.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    plain.train()
    dirty.train()

    assert torch.equal(plain.model.layer.weight, dirty.model.layer.weight)


def test_the_epoch_is_told_to_whatever_shuffles(tmp_path: Path) -> None:
    told: list[int] = []

    class Shuffles(Points):
        def set_epoch(self, epoch: int) -> None:
            told.append(epoch)

    quick(tmp_path, train_dataset=Shuffles(), num_train_epochs=3).train()

    assert told == [0, 1, 2]
